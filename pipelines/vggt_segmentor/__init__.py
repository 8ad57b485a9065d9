"""Parts of `train_vggt_segmentor.py`: pictures with masks, pairs of them, training."""
