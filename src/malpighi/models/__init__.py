"""The models: vision-language models and their prompts, routed adapters, CLIP, segmenter, classifier."""
