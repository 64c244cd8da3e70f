"""A trained run in use: what its classifier says of pictures, without the data that it was trained on."""
