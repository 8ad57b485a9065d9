"""The labels of a run in a Gaussian splat: every Gaussian learns an identity with its colour.

Needs the extra `distill`. Gaussians begin at the run's points, are fitted to its pictures and
label maps, and render labels into every view. See docs/distillation.md.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    from lift3d.scene.errors import MissingExtra

    raise MissingExtra(
        "distillation needs torch; install it with: pip install 'lift3d[distill]'"
    ) from error
