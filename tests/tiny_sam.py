"""SAM and similar networks of a small size with random weights, pictures and prompts for them."""

import functools

import numpy as np
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from lift3d.networks.sam.automatic import AutomaticConfig
from lift3d.scene import Camera, Prompt, View
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig

WIDTH, HEIGHT = 160, 120
DECODER = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
TOY = {
    "width": 32,
    "patch": 16,
    "side": 256,
    "depth": 3,
    "heads": 2,
    "ratio": 2.0,
    "global": (1,),
    "window": 5,
    "channels": 32,
    "mask_channels": 8,
    "decoder_depth": 2,
    "decoder_mlp": 64,
    "masks": 3,
    "head_depth": 3,
    "head_width": 32,
}
EVERYTHING = AutomaticConfig(points_per_side=4, min_score=-9.0, min_stability=0.0, max_overlap=1.0)


def picture(seed=0, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 20, width // 20, 3))
    return np.kron(coarse, np.ones((20, 20, 1))).astype(np.uint8)


def view(image=None, name="0"):
    image = picture() if image is None else image
    height, width = image.shape[:2]
    camera = Camera(np.eye(3), width, height, np.eye(4))
    return View(name, camera, lambda: image)


def points(*xy, negative=()):
    both = np.array([*xy, *negative], float).reshape(-1, 2)
    return Prompt(both, np.arange(len(both)) < len(xy))


def liven(model):
    """Random weights whose masks have borders inside the image: channels cancel on average."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "hypernetworks_mlps" in name or "hq_mask_mlp" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
                weight -= weight.mean(0)
            elif any(each in name for each in ("pos_embed", "point_embed", "mask_tokens")):
                weight.copy_(torch.randn(weight.shape, generator=generator))
            elif name.endswith(("prediction_head.layers.2.bias", "prediction_head.proj_out.bias")):
                weight += torch.tensor([0.3, 0.4, 0.5, 0.6])
    return model


def authors_model(sizes):
    """As `segment_anything.build_sam` does, for any sizes."""
    channels, side, grid = sizes["channels"], sizes["side"], sizes["side"] // sizes["patch"]
    encoder = ImageEncoderViT(
        img_size=side,
        patch_size=sizes["patch"],
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        mlp_ratio=sizes["ratio"],
        out_chans=channels,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes["window"],
        global_attn_indexes=sizes["global"],
    )
    decoder = MaskDecoder(
        transformer_dim=channels,
        transformer=TwoWayTransformer(sizes["decoder_depth"], channels, 8, sizes["decoder_mlp"]),
        num_multimask_outputs=sizes["masks"],
        iou_head_depth=sizes["head_depth"],
        iou_head_hidden_dim=sizes["head_width"],
    )
    prompts = PromptEncoder(channels, (grid, grid), (side, side), sizes["mask_channels"])
    return Sam(encoder, prompts, decoder).eval()


def authors_own(checkpoint):
    """The authors' code with those weights."""
    model = authors_model(TOY)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return model


def write_checkpoint(path):
    """Write a `.pth` as published, of the authors' network."""
    torch.manual_seed(0)
    model = liven(authors_model(TOY))
    with torch.no_grad():
        # A channel that is the same everywhere takes so much off that boxes differ.
        even = model.mask_decoder.output_upscaling[3]
        even.weight[:, 0], even.bias[0] = 0, 1
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight[0], mlp.layers[-1].bias[0] = 0, -9
    torch.save(model.state_dict(), path)
    return path


def sam(checkpoint, **options):
    return SamConfig(checkpoint, **({"device": "cpu", "automatic": EVERYTHING} | options)).build()


def tiny_sam(hq=False):
    import transformers as t

    prefix = t.SamHQConfig if hq else t.SamConfig
    model = t.SamHQModel if hq else t.SamModel
    processor = t.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 64,
        "initializer_range": 0.02,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "image_embedding_size": 4}
    decoder = DECODER | ({"vit_dim": 32} if hq else {})
    config = prefix(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return model(config), processor


def tiny_sam2():
    import transformers as t

    backbone = {
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "model_type": "sam2_hiera_det_model",
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
    config = t.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER
    )
    processor = t.Sam2ImageProcessor(size={"height": 64, "width": 64})
    return t.Sam2Model(config), processor


def tiny_sam3():
    import transformers as t

    backbone = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
        "model_type": "sam3_vit_model",
    }
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "model_type": "sam3_vision_model",
    }
    prompt = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    config = t.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER
    )
    processor = t.Sam3ImageProcessor(size={"height": 56, "width": 56})
    return t.Sam3TrackerModel(config), processor


FAMILY = {
    "sam-hf": tiny_sam,
    "sam2": tiny_sam2,
    "sam-hq": functools.partial(tiny_sam, hq=True),
    "sam3": tiny_sam3,
}


def write_folder(name, path):
    """Write a folder as on the hub, of a model of the family."""
    torch.manual_seed(0)
    model, processor = FAMILY[name]()
    liven(model).save_pretrained(path)
    processor.save_pretrained(path)
    return path


def family(folder, **options):
    given = {"device": "cpu", "automatic": EVERYTHING, "local_files_only": True} | options
    return SamTransformersConfig(str(folder), **given).build()


PROMPTS = [
    points((30, 20)),
    points((100, 60), (110, 70), negative=[(20, 20)]),
    points((140, 100)),
    points((60, 60), (110, 70), negative=[(20, 110)]),
    Prompt(np.zeros((0, 2)), np.zeros(0, bool), box=np.array([20.0, 30, 90, 100])),
    Prompt(np.array([[50.0, 50]]), np.array([True]), box=np.array([20.0, 30, 90, 100])),
    Prompt(np.array([[50.0, 50]]), np.array([True]), mask=picture(3)[..., 0] > 128),
    Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask=picture(4)[..., 0] > 128),
    Prompt(
        np.array([[50.0, 50]]),
        np.array([True]),
        mask=picture(5)[..., 0] > 128,
        box=np.array([20.0, 30, 90, 100]),
    ),
]


def nearly_equal(a, b):
    """Up to the pixels that rounding puts on the other side of the border."""
    return a.shape == b.shape and (a != b).mean() < 1e-3
