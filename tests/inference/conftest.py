"""A tiny build of each family of chat models: real classes, real files, random weights, no network."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

# torch is imported where a model is built: the other tests of this room need not wait for it.
# ruff: noqa: PLC0415

TEXTS = ["Answer with the letter of one option. Which? (A) tumor (B) stroma one two three 0 1 2 3"]
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\\n' }}"
    "{% for part in message.content %}{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('this template knows no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def tokenizer_of(tokens: Sequence[str], named: dict[str, str], **usual: str) -> Any:
    """A byte-level tokenizer with a family's special tokens; `named` ones become attributes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learner, extra_special_tokens=named, **usual)
    known = set(tokenizer.all_special_tokens)
    tokenizer.add_tokens([token for token in tokens if token not in known], special_tokens=True)
    tokenizer.add_tokens(list(TAGS))
    return tokenizer


def qwen2_vl(hf: Any) -> tuple[Any, Any]:
    image, video = "<|image_pad|>", "<|video_pad|>"
    tokenizer = tokenizer_of(
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", image, video],
        {},
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    ids = tokenizer.convert_tokens_to_ids
    config = hf.Qwen2VLConfig(
        text_config=LANGUAGE
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
        | {"vocab_size": len(tokenizer)},
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2},
        image_token_id=ids(image),
        video_token_id=ids(video),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    template = CHATML.replace("IMAGE", f"<|vision_start|>{image}<|vision_end|>")
    processor = hf.Qwen2VLProcessor(
        hf.Qwen2VLImageProcessor(), tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=template
    )
    return hf.Qwen2VLForConditionalGeneration(config), processor


def internvl(hf: Any) -> tuple[Any, Any]:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tokenizer_of(["<|im_start|>"], named, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer)} | LANGUAGE,
        vision_config=TOWER | {"image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = hf.GotOcr2ImageProcessor(
        size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    processor = hf.InternVLProcessor(
        images,
        tokenizer,
        hf.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _llava_language(tokenizer: Any) -> dict[str, Any]:
    return {"model_type": "llama", "vocab_size": len(tokenizer)} | LANGUAGE


def llava(hf: Any) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(
        [], {"image_token": "<image>"}, eos_token="</s>", bos_token="<s>", pad_token="<pad>"
    )
    config = hf.LlavaConfig(
        text_config=_llava_language(tokenizer),
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14} | TOWER,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next(hf: Any) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(
        [], {"image_token": "<image>"}, eos_token="</s>", bos_token="<s>", pad_token="<pad>"
    )
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = hf.LlavaNextConfig(
        text_config=_llava_language(tokenizer),
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14} | TOWER,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
    )
    processor = hf.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision(hf: Any) -> tuple[Any, Any]:
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = tokenizer_of(["<|im_start|>"], named, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    ids = tokenizer.convert_tokens_to_ids
    config = hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer)} | LANGUAGE,
        vision_config={"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14}
        | TOWER
        | {"vision_use_head": False},
        image_token_index=ids("<image>"),
        video_token_index=ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    processor = hf.LlavaOnevisionProcessor(
        images,
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def gemma3(hf: Any) -> tuple[Any, Any]:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = tokenizer_of(
        ["<start_of_turn>", "<end_of_turn>"], named, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    ids = tokenizer.convert_tokens_to_ids
    config = hf.Gemma3Config(
        text_config=LANGUAGE | {"vocab_size": len(tokenizer), "sliding_window": 512},
        vision_config=TOWER | {"image_size": 56, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
    )
    images = hf.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = hf.Gemma3Processor(images, tokenizer, chat_template=GEMMA, image_seq_length=4)
    return hf.Gemma3ForConditionalGeneration(config), processor


def paligemma(hf: Any) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(
        [], {"image_token": "<image>"}, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    images = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(images, tokenizer)
    config = hf.PaliGemmaConfig(
        text_config={"model_type": "gemma", "vocab_size": len(tokenizer)} | LANGUAGE,
        vision_config={"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14}
        | TOWER
        | {"vision_use_head": False, "projection_dim": 32},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def mllama(hf: Any) -> tuple[Any, Any]:
    tokenizer = tokenizer_of(
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"],
        {},
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
    )
    # Llama-Vision's image token lies behind what it can say.
    tokenizer.add_tokens(["<|image|>"], special_tokens=True)
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = hf.MllamaConfig(
        text_config=LANGUAGE
        | {"vocab_size": image, "cross_attention_layers": [1], "pad_token_id": tokenizer.pad_token_id},
        vision_config=TOWER
        | {
            "image_size": 28,
            "patch_size": 14,
            "max_num_tiles": 4,
            "attention_heads": 2,
            "num_global_layers": 1,
            "vision_output_dim": 32,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        image_token_index=image,
    )
    images = hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4)
    return hf.MllamaForConditionalGeneration(config), hf.MllamaProcessor(
        images, tokenizer, chat_template=LLAMA
    )


BUILDERS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    build.__name__: build
    for build in (qwen2_vl, internvl, llava, llava_next, llava_onevision, gemma3, paligemma, mllama)
}


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory):
    """The folder of a family's tiny build, made at first use."""
    import torch
    import transformers

    made: dict[str, Any] = {}

    def folder(family: str) -> Any:
        if family not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                model, processor = BUILDERS[family](transformers)
                # Fresh builds of Gemma and Llama-Vision shut the image out until they are trained.
                for name, weights in model.named_parameters():
                    if not weights.any() and ("gate" in name or "projection" in name):
                        torch.nn.init.normal_(weights)
            made[family] = tmp_path_factory.mktemp("chat") / family
            model.save_pretrained(made[family])
            processor.save_pretrained(made[family])
        return made[family]

    return folder
