"""The recorder's binary format: round trip, damage at every byte, the texts about it, and the real logs."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server import recorder_queries as queries
from drivesim.carla_server import recorder_writer as writer
from drivesim.carla_server.recorder_file import Creation, RecorderFile, UnreadableRecording

LOGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "carla_recorder"
real_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"no real recorder logs at {LOGS}")
CAR = Creation(7, log.A_VEHICLE, (100.0, -200.0, 3.5), (0.0, 1.0, 90.0), 26, "vehicle.tesla.model3",
               ((4, "role_name", "hero"), (5, "color", "1,2,3")))  # fmt: skip
OTHER_CAR = Creation(8, log.A_VEHICLE, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 26, "vehicle.audi.tt", ())


def rows(number, *values):
    return np.array(list(values), log.LAYOUT[number])


def frame(number, elapsed_s, duration_s, *packets):
    start = bytearray(writer.frame_start(number, elapsed_s))
    struct.pack_into("<d", start, writer.DURATION_OFFSET, duration_s)
    return bytes(start) + b"".join(packets) + writer.packet(log.FRAME_END, b"")


def small_log() -> bytes:
    """Three frames of two cars: one drives 5 m a frame and touches the other, which stands and is destroyed."""
    parts = [writer.header_bytes("Town01", 1637676528)]
    for number in range(3):
        packets = [
            writer.records_packet(
                log.POSITION,
                rows(
                    log.POSITION,
                    (7, (500.0 * number, 0.0, 0.0), (0.0, 0.0, 0.0)),
                    (8, (900.0, 9.0, 0.0), (0.0, 0.0, 0.0)),
                ),
            )
        ]
        if number == 0:
            packets.insert(0, writer.creations_packet([CAR, OTHER_CAR]))
            packets.append(writer.records_packet(log.KINEMATICS, rows(log.KINEMATICS, (7, (1, 2, 3), (4, 5, 6)))))
        if number >= 1:
            packets.append(writer.records_packet(log.COLLISION, rows(log.COLLISION, (number, 7, 8, 1, 0))))
        if number == 2:
            packets.append(writer.records_packet(log.DESTROYED, rows(log.DESTROYED, (8,))))
        parts.append(frame(number + 1, 0.5 * number, 0.5 if number < 2 else -1.0, *packets))
    return b"".join(parts)


def test_what_is_written_reads_back():
    recording = RecorderFile(small_log())
    assert recording.header == log.Header(writer.VERSION, 1637676528, "Town01")
    assert recording.numbers == [1, 2, 3] and recording.elapsed_s.tolist() == [0.0, 0.5, 1.0]
    assert recording.durations_s.tolist() == [0.5, 0.5, -1.0] and recording.total_s == 1.0
    assert recording.event_frames == [0, 2]
    packets = dict(recording.packets(0))
    assert log.creations(packets[log.CREATED]) == [CAR, OTHER_CAR] and CAR.hero and not OTHER_CAR.hero
    assert log.records(packets[log.KINEMATICS], log.KINEMATICS)["velocity"].tolist() == [[1.0, 2.0, 3.0]]
    assert log.records(dict(recording.packets(2))[log.POSITION], log.POSITION)["location"][0].tolist() == [1000, 0, 0]


def test_physics_bones_and_late_packets_read_back():
    plain = (7, 6500.0, 1.0, 0.25, 2.0, 0.5, 1, 10.0, 3.0, 1700.0, 0.5, 0.0, 0.0, -0.25)
    curves = [[(0, 400), (6000, 300)], [(4, 0.5, 0.75)], [(0, 1)], [tuple(range(12))] * 4]
    control = writer.physics_packet([(plain, curves)])[5:]
    ((read, parts),) = log.physics(memoryview(control))
    assert read == plain and [part.tolist() for part in parts] == [np.array(c, float).tolist() for c in curves]
    bone = struct.pack("<HIH", 1, 7, 1) + b"\x04\x00root" + struct.pack("<6f", *range(6))
    assert log.bones(memoryview(bone)) == [(7, [("root", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0))])]
    wheels = struct.pack("<HII", 1, 7, 4) + bytes(36)
    doors, bikers = struct.pack("<HIBB", 1, 7, 0, 1), struct.pack("<HIff", 1, 7, 1, 1)
    kinds = [log.late_kind(memoryview(payload)) for payload in (doors, wheels, bikers)]
    assert kinds == [log.DOORS, log.WHEELS, log.BIKERS]
    with pytest.raises(UnreadableRecording):
        log.late_kind(memoryview(wheels[:-1]))


def test_a_log_cut_at_any_byte_is_refused_or_has_whole_frames_only():
    data = small_log()
    whole, texts = [], []
    for size in range(len(data)):
        try:
            recording = RecorderFile(data[:size])
        except UnreadableRecording as error:
            texts.append(str(error))
        else:
            whole.append(len(recording))
            queries.file_info(recording, show_all=True)
    assert all("cut off" in text or "recorder" in text for text in texts)
    assert whole == [0, 1, 2]  # after the header, and after each frame but the last


def test_damage_never_raises_anything_else():
    data, generator = small_log(), random.Random(3)
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.choice((0, 1, 127, 255, generator.randrange(256)))
        try:
            recording = RecorderFile(bytes(damaged))
        except UnreadableRecording:
            continue
        for ask in (
            lambda r: queries.file_info(r, show_all=True),
            lambda r: queries.file_info(r, show_all=False),
            lambda r: queries.collisions(r, "a", "a"),
            lambda r: queries.actors_blocked(r, 0.1, 10.0),
        ):
            assert ask(recording).startswith("Version: ")


@pytest.mark.parametrize(
    "data", [b"", b"\x01\x00", b"PK\x03\x04" * 40, b"\x01\x00\xff\xff" + b"CARLA", b"\x80\x04cos\n"]
)
def test_other_files_are_named_as_such(data):
    with pytest.raises(UnreadableRecording, match="not a CARLA recorder"):
        RecorderFile(data)


def test_hostile_lengths_are_refused():
    head = writer.header_bytes("Town01", 0)
    start, end = writer.frame_start(1, 0.0), writer.packet(log.FRAME_END, b"")
    bad = {
        "cut off": head + start + struct.pack("<BI", log.POSITION, 0xFFFFFFFF),
        "do not hold": head + start + writer.packet(log.POSITION, struct.pack("<H", 65535) + bytes(28)) + end,
        "longer than it is": head + start + writer.packet(log.CREATED, struct.pack("<H", 65535) + bytes(60)) + end,
        "outside of any frame": head + writer.packet(log.POSITION, bytes(2)),
        "out of order": head + frame(1, 5.0, 1.0) + frame(2, 1.0, 1.0),
        "no end": head + start,
        "instead of 8": head + start + writer.packet(log.PLATFORM_TIME, b"123") + end,
    }
    physics = struct.pack("<HI5fB7f", 1, 7, *[0.0] * 5, 1, *[0.0] * 7) + struct.pack("<I", 0xFFFFFFFF)
    bad["records are longer"] = head + start + writer.packet(log.PHYSICS, physics) + end
    for text, data in bad.items():
        with pytest.raises(UnreadableRecording, match=text):
            RecorderFile(data)
    for elapsed_s in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UnreadableRecording, match="out of order"):
            RecorderFile(head + frame(1, elapsed_s, 1.0))


def test_packets_of_later_versions_are_left_alone():
    data = writer.header_bytes("Town01", 0) + frame(1, 0.0, -1.0, writer.packet(77, b"anything"))
    assert len(RecorderFile(data)) == 1


def test_no_device_and_no_folder_is_read(tmp_path):
    with pytest.raises(UnreadableRecording, match="regular"):
        log.load(Path("/dev/zero"))
    with pytest.raises((UnreadableRecording, OSError)):
        log.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        log.load(tmp_path / "none.log")


def test_texts_are_carlas():
    recording = RecorderFile(small_log())
    events = queries.file_info(recording, show_all=False)
    assert events.startswith("Version: 2\nMap: Town01\nDate: 11/")
    assert ("\n\nFrame 1 at 0 seconds\n Create 7: vehicle.tesla.model3 (1) at (100, -200, 3.5)\n  role_name = hero\n"
            "  color = 1,2,3\n Create 8: vehicle.audi.tt (1) at (0, 0, 0)\nFrame 2 at 0.5 seconds\n"
            " Collision id 1 between 7 (hero)  with 8\nFrame 3 at 1 seconds\n Collision id 2 between 7 (hero)  with 8\n"
            " Destroy 8\n\nFrames: 3\nDuration: 1 seconds\n") in events  # fmt: skip
    everything = queries.file_info(recording, show_all=True)
    assert " Positions: 2\n  Id: 7 Location: (500, 0, 0) Rotation: (0, 0, 0)\n" in everything
    assert "  Id: 7 linear_velocity: (1, 2, 3) angular_velocity: (4, 5, 6)\n" in everything


def test_collisions_by_category():
    recording = RecorderFile(small_log())
    line = "       0   v v       7 vehicle.tesla.model3                     8 vehicle.audi.tt                    \n"
    for first, second in ("aa", "vv", "hv", "ha"):
        text = queries.collisions(recording, first, second)
        assert text.count("vehicle.tesla.model3") == 1, "a contact that lasts is one collision"
        assert line in text and text.endswith("\nFrames: 3\nDuration: 1 seconds\n")
    for first, second in ("vh", "wv", "ov", "at"):
        assert "vehicle" not in queries.collisions(recording, first, second)


def test_blocked_actors_the_longest_first():
    text = queries.actors_blocked(RecorderFile(small_log()), 0.4, 100.0)
    lines = text.split("Duration\n")[1].splitlines()
    # as CARLA counts: the last frame's duration is -1, so the standing car (1.0 - 1.0 s) no longer shows
    assert lines[0] == "       0      7 vehicle.tesla.model3                         0" and "audi" not in text


def test_an_endless_text_is_refused(monkeypatch):
    monkeypatch.setattr(queries, "TEXT_LIMIT", 300)
    with pytest.raises(queries.TextTooLong, match="longer than"):
        queries.file_info(RecorderFile(small_log()), show_all=True)
    monkeypatch.setattr(queries, "MOST_LINES", 0)
    with pytest.raises(queries.TextTooLong, match="lines"):
        queries.actors_blocked(RecorderFile(small_log()), 0.0, 100.0)


@real_logs
@pytest.mark.parametrize(
    ("name", "frames", "total_s"), [("DistanceBetweenVehicles", 847, 24.7237), ("DistanceToLaneCenter", 432, 12.5282)]
)
def test_real_logs(name, frames, total_s):
    recording = log.load(LOGS / f"{name}.log")
    assert len(recording) == frames and recording.total_s == pytest.approx(total_s, abs=1e-4)
    assert recording.header.map_name == "Town01" and recording.header.version == 1
    made = [one for f in recording.event_frames for n, p in recording.packets(f) if n == log.CREATED
            for one in log.creations(p)]  # fmt: skip
    assert sum(one.kind == log.A_LIGHT for one in made) == 36
    assert any(one.type_id == "vehicle.lincoln.mkz_2017" and one.hero for one in made)
    events = queries.file_info(recording, show_all=False)
    assert " Create 1: spectator (0) at (" in events and " (parent)\n" in events
    assert events.endswith(f"\nFrames: {frames}\nDuration: {total_s} seconds\n")
    everything = queries.file_info(recording, show_all=True)
    for title in (
        " Positions: ",
        " State traffic lights: 36",
        " Vehicle animations: ",
        " Physics Control events: ",
        " Traffic Light time events: 36",
        " Actor bounding boxes: ",
        " Current platform time: ",
    ):
        assert title in everything
    assert "origin: (-nan, -nan, -nan) extension: (-inf, -inf, -inf)" in everything
    assert queries.collisions(recording, "a", "a").count("vehicle") == 0
    assert "static.prop.mesh" in queries.actors_blocked(recording, 5.0, 100.0)


@real_logs
def test_a_real_log_cut_off_is_refused():
    data = (LOGS / "DistanceToLaneCenter.log").read_bytes()
    for size in (33, 5_000, 22_000, 1_000_000, len(data) - 1):
        with pytest.raises(UnreadableRecording):
            RecorderFile(data[:size])
