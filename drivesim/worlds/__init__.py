"""The worlds a driver drives in: CARLA through its client, and the embedded town in process (floor 4)."""
