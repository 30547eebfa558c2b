"""The attributes of CARLA's sensor blueprints, with their defaults; everything is text, as on the wire."""

from __future__ import annotations

Attributes = dict[str, str]

_TICK: Attributes = {"sensor_tick": "0.0"}
_CAMERA: Attributes = {
    "fov": "90.0", "image_size_x": "800", "image_size_y": "600", "lens_circle_falloff": "5.0",
    "lens_circle_multiplier": "0.0", "lens_k": "-1.0", "lens_kcube": "0.0", "lens_x_size": "0.08",
    "lens_y_size": "0.08", **_TICK,
}  # fmt: skip
_RGB: Attributes = {
    **_CAMERA, "enable_postprocess_effects": "true", "gamma": "2.2", "motion_blur_intensity": "0.45",
    "motion_blur_max_distortion": "0.35", "motion_blur_min_object_screen_size": "0.1", "lens_flare_intensity": "0.1",
    "bloom_intensity": "0.675", "exposure_mode": "histogram", "exposure_compensation": "0.0", "shutter_speed": "200.0",
    "iso": "100.0", "fstop": "1.4", "exposure_min_bright": "10.0", "exposure_max_bright": "12.0",
    "exposure_speed_up": "3.0", "exposure_speed_down": "1.0", "calibration_constant": "16.0",
    "focal_distance": "1000.0", "blur_amount": "1.0", "blur_radius": "0.0", "min_fstop": "1.2", "blade_count": "5",
    "slope": "0.88", "toe": "0.55", "shoulder": "0.26", "black_clip": "0.0", "white_clip": "0.04", "temp": "6500.0",
    "tint": "0.0", "chromatic_aberration_intensity": "0.0", "chromatic_aberration_offset": "0.0",
}  # fmt: skip
_DVS: Attributes = {
    **_RGB, "positive_threshold": "0.3", "negative_threshold": "0.3", "sigma_positive_threshold": "0.0",
    "sigma_negative_threshold": "0.0", "refractory_period_ns": "0", "use_log": "true", "log_eps": "0.001",
}  # fmt: skip
_IMU: Attributes = {
    "noise_seed": "0", "noise_accel_stddev_x": "0.0", "noise_accel_stddev_y": "0.0", "noise_accel_stddev_z": "0.0",
    "noise_gyro_stddev_x": "0.0", "noise_gyro_stddev_y": "0.0", "noise_gyro_stddev_z": "0.0",
    "noise_gyro_bias_x": "0.0", "noise_gyro_bias_y": "0.0", "noise_gyro_bias_z": "0.0", **_TICK,
}  # fmt: skip
_GNSS: Attributes = {
    "noise_seed": "0", "noise_lat_stddev": "0.0", "noise_lat_bias": "0.0", "noise_lon_stddev": "0.0",
    "noise_lon_bias": "0.0", "noise_alt_stddev": "0.0", "noise_alt_bias": "0.0", **_TICK,
}  # fmt: skip
_RADAR: Attributes = {
    "horizontal_fov": "30.0", "vertical_fov": "30.0", "range": "100.0", "points_per_second": "1500",
    "noise_seed": "0", **_TICK,
}  # fmt: skip
_RAYS: Attributes = {
    "channels": "32", "range": "10.0", "points_per_second": "56000", "rotation_frequency": "10.0",
    "upper_fov": "10.0", "lower_fov": "-30.0", "horizontal_fov": "360.0", **_TICK,
}  # fmt: skip
_LIDAR: Attributes = {
    **_RAYS, "atmosphere_attenuation_rate": "0.004", "dropoff_general_rate": "0.45", "dropoff_intensity_limit": "0.8",
    "dropoff_zero_intensity": "0.4", "noise_stddev": "0.0", "noise_seed": "0",
}  # fmt: skip
_OBSTACLE: Attributes = {
    "distance": "5.0", "hit_radius": "0.5", "only_dynamics": "false", "debug_linetrace": "false", **_TICK
}  # fmt: skip

SENSORS: dict[str, Attributes] = {
    "sensor.camera.rgb": _RGB,
    "sensor.camera.depth": _CAMERA,
    "sensor.camera.semantic_segmentation": _CAMERA,
    "sensor.camera.instance_segmentation": _CAMERA,
    "sensor.camera.normals": _CAMERA,
    "sensor.camera.optical_flow": _CAMERA,
    "sensor.camera.dvs": _DVS,
    "sensor.lidar.ray_cast": _LIDAR,
    "sensor.lidar.ray_cast_semantic": _RAYS,
    "sensor.other.radar": _RADAR,
    "sensor.other.collision": {},
    "sensor.other.lane_invasion": {},
    "sensor.other.obstacle": _OBSTACLE,
    "sensor.other.gnss": _GNSS,
    "sensor.other.imu": _IMU,
}
# the wire's index of each sensor's data; -1: nothing is streamed
SENSOR_INDEX: dict[str, int] = {
    "sensor.other.collision": 0, "sensor.camera.depth": 1, "sensor.camera.normals": 2, "sensor.camera.dvs": 3,
    "sensor.other.gnss": 4, "sensor.other.imu": 5, "sensor.other.lane_invasion": -1, "sensor.other.obstacle": 7,
    "sensor.camera.optical_flow": 8, "sensor.other.radar": 9, "sensor.lidar.ray_cast_semantic": 10,
    "sensor.lidar.ray_cast": 11, "sensor.camera.rgb": 13, "sensor.camera.semantic_segmentation": 14,
    "sensor.camera.instance_segmentation": 15,
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {"exposure_mode": ("manual", "histogram")}
WHOLE_NUMBERS = frozenset({"image_size_x", "image_size_y", "noise_seed", "channels", "points_per_second", "blade_count",
                           "refractory_period_ns"})  # fmt: skip
