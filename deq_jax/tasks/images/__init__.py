"""Classification of images: data, model, loss, presets."""
