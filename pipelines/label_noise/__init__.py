"""Parts of `train_segmentation.py`: labelled clouds, the network, its training and scores."""
