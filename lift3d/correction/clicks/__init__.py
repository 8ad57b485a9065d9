"""One click, all views: prompts in any views to a mask in every view, and points.

Three ways, used together (`answering.py`):

* **look up** (`nodes.py`): the nodes of the tree of joins that explain the prompted mask best, or
  that clicks mean (`choosing.py`). They also say what is true of surfaces that no prompted view
  sees.
* **carry** (`evidence.py`): a mask is lifted to the points that its view really sees; what the view
  sees outside of the mask is known not to be the object. A promptable segmenter is then asked in
  the other views, its answers are checked against what is known, and vote (`asking.py`).
* **graph** (`walker.py`): random walks on superpoints (Grady 2006) decide what no prompt reached.

Points are shown in a view through the nearest point of each pixel, by the pixel's own depth
(`nearest.py`), or by colour beside it where that is missing (`gaps.py`); where depth is sparse or
full of holes, random walks on superpixels fill the picture (`filling.py`). Borders follow the edges
of the picture (`bilateral.py`). Several objects compete: a pixel is of the most probable one.
"""
