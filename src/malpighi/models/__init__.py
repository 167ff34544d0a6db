"""The models: vision-language models and what is asked of them, routed adapters, CLIP, segmenter, classifier."""
