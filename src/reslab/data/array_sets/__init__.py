"""Sets of images in NumPy's .npy and .npz files."""
