"""Distil the labels of a run into a Gaussian splat: each Gaussian learns colour and identity.

Needs the extra `distill`. Gaussians are initialised at the run's points, fitted to its pictures
and label maps, and render labels into every view. See docs/distillation.md.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    from lift3d.scene.errors import MissingExtra

    raise MissingExtra(
        "distillation needs torch; install it with: pip install 'lift3d[distill]'"
    ) from error
