"""What other programs read and write: annotations, masks, labels and heat maps of slides."""
