"""Our parameter names and those of other formats: one table for each format (see `tables`)."""

from collections.abc import Iterator, Mapping

from openxclip.checkpoints.tables import Op, Row, Table


def _linear_block(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Row]:
    """Rows for layers of a transformer block that differ only in name."""
    for our_layer, their_layer in names.items():
        yield Row(f"{ours}.{our_layer}.@", f"{theirs}.{their_layer}.@")


def _official_attention(ours: str, theirs: str) -> tuple[Row, Row]:
    return (
        Row(f"{ours}.qkv.@", f"{theirs}.in_proj_@"),
        Row(f"{ours}.proj.@", f"{theirs}.out_proj.@"),
    )


def _huggingface_attention(ours: str, theirs: str) -> tuple[Row, Row]:
    query, key, value = (f"{theirs}.{letter}_proj.@" for letter in "qkv")
    return (
        Row(f"{ours}.qkv.@", (query, key, value), Op.FUSE),
        Row(f"{ours}.proj.@", f"{theirs}.out_proj.@"),
    )


_OFFICIAL_MLP = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_OFFICIAL_BLOCK = {"attn_norm": "ln_1", "mlp_norm": "ln_2"} | _OFFICIAL_MLP
_OFFICIAL_FRAME_BLOCK = {
    "message_proj": "message_fc",
    "cross_norm": "message_ln",
    "intra_norm": "ln_1",
    "mlp_norm": "ln_2",
} | _OFFICIAL_MLP

_HUGGINGFACE_MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_HUGGINGFACE_BLOCK = {"attn_norm": "layer_norm1", "mlp_norm": "layer_norm2"} | _HUGGINGFACE_MLP
_HUGGINGFACE_FRAME_BLOCK = {
    "message_proj": "message_fc",
    "cross_norm": "message_ln",
    "intra_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
} | _HUGGINGFACE_MLP

_PROMPTING_LAYERS = (  # the same in the official code and the Hugging Face port
    Row("prompting.alpha", "prompts_generator.alpha"),
    Row("prompting.layers.*.query_norm.@", "prompts_generator.decoder.*.norm1.@"),
    Row("prompting.layers.*.cross_attn.query.weight", "prompts_generator.decoder.*.cross_attn.q_proj.weight"),
    Row("prompting.layers.*.cross_attn.key.weight", "prompts_generator.decoder.*.cross_attn.k_proj.weight"),
    Row("prompting.layers.*.cross_attn.value.weight", "prompts_generator.decoder.*.cross_attn.v_proj.weight"),
    Row("prompting.layers.*.cross_attn.proj.@", "prompts_generator.decoder.*.cross_attn.proj.@"),
    Row("prompting.layers.*.mlp_norm.@", "prompts_generator.decoder.*.norm3.@"),
    Row("prompting.layers.*.mlp.fc1.@", "prompts_generator.decoder.*.mlp.0.@"),
    Row("prompting.layers.*.mlp.fc2.@", "prompts_generator.decoder.*.mlp.3.@"),
)

NATIVE = Table(rows=(Row("#", "#"),))
"""Our own names."""

OFFICIAL = Table(
    rows=(
        Row("logit_scale", "logit_scale"),
        Row("visual.patch_embedding.weight", "visual.conv1.weight"),
        Row("visual.class_embedding", "visual.class_embedding"),
        Row("visual.position_embedding", "visual.positional_embedding"),
        Row("visual.pre_norm.@", "visual.ln_pre.@"),
        *_linear_block("visual.blocks.*", "visual.transformer.resblocks.*", _OFFICIAL_FRAME_BLOCK),
        *_official_attention("visual.blocks.*.cross_attn", "visual.transformer.resblocks.*.message_attn"),
        *_official_attention("visual.blocks.*.intra_attn", "visual.transformer.resblocks.*.attn"),
        Row("visual.post_norm.@", "visual.ln_post.@"),
        Row("visual.proj.weight", "visual.proj", Op.TRANSPOSE),
        Row("integration.position_embedding", "mit.positional_embedding", Op.UNBATCH),
        *_linear_block("integration.blocks.*", "mit.resblocks.*", _OFFICIAL_BLOCK),
        *_official_attention("integration.blocks.*.attn", "mit.resblocks.*.attn"),
        Row("prompting.patch_norm.@", "prompts_visual_ln.@"),
        Row("prompting.patch_proj.weight", "prompts_visual_proj", Op.TRANSPOSE),
        Row("prompting.context_norm.@", "prompts_generator.norm.@"),
        *_PROMPTING_LAYERS,
        Row("text.token_embedding.weight", "token_embedding.weight"),
        Row("text.position_embedding", "positional_embedding"),
        *_linear_block("text.blocks.*", "transformer.resblocks.*", _OFFICIAL_BLOCK),
        *_official_attention("text.blocks.*.attn", "transformer.resblocks.*.attn"),
        Row("text.final_norm.@", "ln_final.@"),
        Row("text.proj.weight", "text_projection", Op.TRANSPOSE),
    )
)
"""The official code's names, which extend OpenAI's."""

OPENAI_CLIP = Table(
    rows=OFFICIAL.rows,
    # Sizes stored with the weights, and causal masks, which TorchScript stores as tensors.
    ignored=r"input_resolution|context_length|vocab_size|.*\.attn_mask",
)
"""OpenAI CLIP's names: the official ones, without the parts that X-CLIP adds."""

_HUGGINGFACE_TOWERS = (  # the same in X-CLIP's port, CLIP and SigLIP
    Row("visual.position_embedding", "vision_model.embeddings.position_embedding.weight"),
    *_linear_block("visual.blocks.*", "vision_model.encoder.layers.*", _HUGGINGFACE_FRAME_BLOCK),
    *_huggingface_attention("visual.blocks.*.intra_attn", "vision_model.encoder.layers.*.self_attn"),
    Row("visual.post_norm.@", "vision_model.post_layernorm.@"),
    Row("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    Row("text.position_embedding", "text_model.embeddings.position_embedding.weight"),
    *_linear_block("text.blocks.*", "text_model.encoder.layers.*", _HUGGINGFACE_BLOCK),
    *_huggingface_attention("text.blocks.*.attn", "text_model.encoder.layers.*.self_attn"),
    Row("text.final_norm.@", "text_model.final_layer_norm.@"),
)

_HUGGINGFACE_CLIP_TOWERS = (  # the same in X-CLIP's port and CLIP, except for one misspelled norm
    *_HUGGINGFACE_TOWERS,
    Row("logit_scale", "logit_scale"),
    Row("visual.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
    Row("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    Row("visual.proj.weight", "visual_projection.weight"),
    Row("text.proj.weight", "text_projection.weight"),
)

# Buffers in files of older versions of transformers.
_POSITION_IDS = r"(text|vision)_model\.embeddings\.position_ids"

HUGGINGFACE = Table(
    rows=(
        *_HUGGINGFACE_CLIP_TOWERS,
        Row("visual.pre_norm.@", "vision_model.pre_layernorm.@"),
        *_huggingface_attention("visual.blocks.*.cross_attn", "vision_model.encoder.layers.*.message_attn"),
        Row("integration.position_embedding", "mit.position_embedding", Op.UNBATCH),
        *_linear_block("integration.blocks.*", "mit.encoder.layers.*", _HUGGINGFACE_BLOCK),
        *_huggingface_attention("integration.blocks.*.attn", "mit.encoder.layers.*.self_attn"),
        Row("prompting.patch_norm.@", "prompts_visual_layernorm.@"),
        Row("prompting.patch_proj.weight", "prompts_visual_projection", Op.TRANSPOSE),
        Row("prompting.context_norm.@", "prompts_generator.layernorm.@"),
        *_PROMPTING_LAYERS,
    ),
    ignored=_POSITION_IDS,
)
"""The names of XCLIPModel in transformers."""

HUGGINGFACE_CLIP = Table(
    rows=(*_HUGGINGFACE_CLIP_TOWERS, Row("visual.pre_norm.@", "vision_model.pre_layrnorm.@")),
    ignored=_POSITION_IDS,
)
"""The names of CLIPModel in transformers, in its spelling."""


def _huggingface_siglip(patch_embedding: Op) -> Table:
    embedding, head = "vision_model.embeddings.patch_embedding", "vision_model.head"
    return Table(
        rows=(
            *_HUGGINGFACE_TOWERS,
            Row("logit_scale", "logit_scale", Op.UNBATCH),
            Row("logit_bias", "logit_bias", Op.UNBATCH),
            Row("visual.patch_embedding.weight", f"{embedding}.weight", patch_embedding),
            Row("visual.patch_embedding.bias", f"{embedding}.bias"),
            Row("visual.pooling.probe", f"{head}.probe", Op.UNBATCH_TWICE),
            *_official_attention("visual.pooling.attn", f"{head}.attention"),
            *_linear_block("visual.pooling", head, {"mlp_norm": "layernorm"} | _HUGGINGFACE_MLP),
            Row("text.proj.@", "text_model.head.@"),
        ),
        ignored=_POSITION_IDS,
    )


HUGGINGFACE_SIGLIP = _huggingface_siglip(Op.COPY)
"""The names of SiglipModel in transformers, and of SigLIP 2 with an input of fixed size."""

HUGGINGFACE_SIGLIP2 = _huggingface_siglip(Op.UNPATCH)
"""The names of Siglip2Model in transformers, whose input is flattened patches (NaFlex)."""

_TIMM_BLOCK = {
    "intra_norm": "norm1",
    "intra_attn.qkv": "attn.qkv",
    "intra_attn.proj": "attn.proj",
    "mlp_norm": "norm2",
} | _HUGGINGFACE_MLP

_TIMM = "visual.trunk"


def _open_clip_text(prefix: str, projection: Row) -> tuple[Row, ...]:
    return (
        Row("text.token_embedding.weight", f"{prefix}token_embedding.weight"),
        Row("text.position_embedding", f"{prefix}positional_embedding"),
        *_linear_block("text.blocks.*", f"{prefix}transformer.resblocks.*", _OFFICIAL_BLOCK),
        *_official_attention("text.blocks.*.attn", f"{prefix}transformer.resblocks.*.attn"),
        Row("text.final_norm.@", f"{prefix}ln_final.@"),
        projection,
    )


def open_clip_timm(projection_bias: bool) -> Table:
    """The names of open_clip's models with an image tower of timm; a text projection with bias is a Linear."""
    projection = Row("text.proj.@", "text.text_projection.@")
    if not projection_bias:
        projection = Row("text.proj.weight", "text.text_projection", Op.TRANSPOSE)
    return Table(
        rows=(
            Row("logit_scale", "logit_scale"),
            Row("logit_bias", "logit_bias"),
            Row("visual.patch_embedding.@", f"{_TIMM}.patch_embed.proj.@"),
            Row("visual.class_embedding", f"{_TIMM}.cls_token", Op.UNBATCH_TWICE),
            Row("visual.position_embedding", f"{_TIMM}.pos_embed", Op.UNBATCH),
            Row("visual.pre_norm.@", f"{_TIMM}.norm_pre.@"),
            *_linear_block("visual.blocks.*", f"{_TIMM}.blocks.*", _TIMM_BLOCK),
            Row("visual.post_norm.@", f"{_TIMM}.norm.@"),
            Row("visual.pooling.probe", f"{_TIMM}.attn_pool.latent", Op.UNBATCH_TWICE),
            Row("visual.pooling.attn.qkv.@", (f"{_TIMM}.attn_pool.q.@", f"{_TIMM}.attn_pool.kv.@"), Op.FUSE),
            Row("visual.pooling.attn.proj.@", f"{_TIMM}.attn_pool.proj.@"),
            *_linear_block("visual.pooling", f"{_TIMM}.attn_pool", {"mlp_norm": "norm"} | _HUGGINGFACE_MLP),
            Row("visual.proj.@", f"{_TIMM}.head.@"),
            *_open_clip_text("text.", projection),
        )
    )
