"""The checkpoints that lift3d knows: where they are published, what for, and their licences."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000
ABOUT = 0.1
"""Part by which a size that is only about known may be wrong."""
HUB = "https://huggingface.co/"
SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
NAVER = "https://download.europe.naverlabs.com/ComputerVision/MASt3R/"
MAST3R = "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"
"""The authors' checkpoint with metric scale."""
VGGT = "VGGT-1B"
"""The authors' checkpoint for non-commercial use."""
VGGT_COMMERCIAL = "VGGT-1B-Commercial"
"""Another training run of the same network; commercial use is allowed."""
VGGT_S = "VGGT-S"
"""The head of VGGT-Segmentor, trained on Ego-Exo4D."""


@dataclass(frozen=True)
class Checkpoint:
    """One published file of weights."""

    name: str
    url: str
    size: int
    """In bytes."""
    sha256: str | None
    """None where no trustworthy source publishes it: the first downloaded file is trusted."""
    purpose: str
    licence: str
    about: bool = False
    """Whether `size` is only about right, as far as we know it."""
    form: str = ""
    """The page with a form to fill in before the file can be had; it is not fetched then."""
    saved: str = ""
    """The name of the file here, where the published one says too little."""

    @property
    def file(self) -> str:
        """The name of the file here: by default the published one."""
        return self.saved or self.url.rsplit("/", 1)[-1]

    def fits(self, size: int) -> bool:
        """Whether a file of this many bytes may be it."""
        return abs(size - self.size) <= (ABOUT * self.size if self.about else 0)


_ALL = (
    Checkpoint(
        name=MAST3R,
        url=f"{NAVER}{MAST3R}.pth",
        size=2_754_910_614,
        sha256=None,
        purpose="reconstruction and matching, metric scale (MASt3R)",
        licence="CC BY-NC-SA 4.0, non-commercial use only; the licences of its training data bind "
        "too, Map-free's is very restrictive (CHECKPOINTS_NOTICE in github.com/naver/mast3r)",
    ),
    # Sizes from the number of values; no source gives the bytes.
    Checkpoint(
        name=VGGT,
        url=f"{HUB}facebook/VGGT-1B/resolve/main/model.pt",
        size=5_026_500_000,
        sha256=None,
        purpose="reconstruction and matching, and below VGGT-S (VGGT)",
        licence="non-commercial use only (others name it CC BY-NC 4.0); read it at "
        "huggingface.co/facebook/VGGT-1B",
        about=True,
        saved="VGGT-1B.pt",
    ),
    Checkpoint(
        name=VGGT_COMMERCIAL,
        url=f"{HUB}facebook/VGGT-1B-Commercial/resolve/main/vggt_1B_commercial.pt",
        size=5_026_500_000,
        sha256=None,
        purpose="reconstruction and matching (VGGT, another training run; not for VGGT-S)",
        licence="VGGT License v1: commercial use allowed; an acceptable-use policy excludes among "
        "others military use; publications must acknowledge it",
        about=True,
        form=f"{HUB}facebook/VGGT-1B-Commercial",
    ),
    Checkpoint(
        name=VGGT_S,
        url=f"{HUB}zbbhhh/VGGT-S/resolve/main/main_exp.pth",
        size=456_000_000,
        sha256=None,
        purpose="masks carried from picture to picture (VGGT-Segmentor; needs VGGT-1B too)",
        licence="Apache-2.0 for the code, that of the weights is not verified; use is limited by "
        "VGGT-1B (non-commercial) and by the licence of Ego-Exo4D, its training data",
        about=True,
        saved="VGGT-S.pth",
    ),
    # The digits in the names of SAM's files begin the MD5, not the SHA-256.
    Checkpoint(
        name="sam_vit_b",
        url=f"{SAM}sam_vit_b_01ec64.pth",
        size=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        purpose="segmentation, the smallest SAM (ViT-B)",
        licence="Apache-2.0",
    ),
    Checkpoint(
        name="sam_vit_l",
        url=f"{SAM}sam_vit_l_0b3195.pth",
        size=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        purpose="segmentation, SAM of middle size (ViT-L)",
        licence="Apache-2.0",
    ),
    Checkpoint(
        name="sam_vit_h",
        url=f"{SAM}sam_vit_h_4b8939.pth",
        size=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        purpose="segmentation, the largest SAM (ViT-H)",
        licence="Apache-2.0",
    ),
)
KNOWN = {checkpoint.name: checkpoint for checkpoint in _ALL}
