"""The same answers as the torch text, faster: numba on a CPU, Triton on CUDA. Imported only when first used."""
