"""Rooms that resemble scans: soft and built-in furniture, and the errors of real sensors.

`rooms.py` furnishes them with what is in the files of things (`clutter.py`, `soft.py`,
`kitchen.py`, `storage.py`); `scanner.py` draws how a room is scanned; `sensor.py`, `picture.py`,
`drift.py` and `resurfaced.py` are depth, colour, poses and the fused surface of that scan.
"""
