"""Work in other processes: of this machine (`local.py`) or of a Ray cluster (`cluster.py`).

`Round` hands out the items of one job and takes the answers, whichever kind of crew there is.
`views.py` uses it for the views of one scan, `lift3d.run.batch` for many scans.
"""
