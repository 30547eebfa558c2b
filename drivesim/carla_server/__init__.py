"""The town behind CARLA 0.9.16's wire protocol, so that the unmodified `carla` client connects.

Frame: CARLA's (left-handed, z up); degrees and metres on the wire, radians inside the town.
"""
