"""What docs/benchmarks.md says of each benchmark, in the order of the page."""

WORDS = {
    "page": """# Benchmarks
Measured by the commands below; the page itself is made by `python -m benchmarks.page` from
benchmarks/results, which also have the spreads. All ways of a table ran interleaved in one process,
after a round that is not counted, and their results were compared first; medians are shown. Memory
that is freed stays with the process, for every candidate alike: with the C library's defaults each
tensor above 32 MB is fetched from the system anew, which takes several times the work in it.""",
    "storage": """## What is kept for one image
Counted on meta tensors. "ReLU activations" is DFV's record in float32, and the second column the
paper's Table 1, which prints them as values x 4 bytes x 1000 images / 10^6 / 1024. Autograd is what
a graph of the plain network keeps with frozen weights, "doubled batch" the same of the paper's
doubled batch in torch functions.""",
    "peers": """## F v and Fᵀ u by every way
Time over that of a plain pass (forward for F v, forward and backward with frozen weights for Fᵀ u);
below 1 is faster than torch itself. Gradients and "tape of Taylor" give the Jacobian, which is F
where the network is piecewise linear; on CycleGAN the other ways freeze as the paper does.""",
    "dfv": """## Against Deep Filter Visualization
Table 2 of the paper: DFV records every activation, in memory or in files that the page cache does
not hold.""",
    "memory": """## Memory
A fresh process for each: MB kept by the way, and at the peak of one product, over what the process
held with the network loaded.""",
    "fits": """## How large an input fits
Fᵀ u of the paper's large EDSR (32 blocks of 256 features, x4): pixels of the input for which the
peak of the whole process stays within 4, 8 and 16 GB, on the line through two measured sizes; a
third confirms it to 10 %.""",
    "kernels": """## Operators
A doubled batch of 64 channels of height x 512 pixels, against the same in torch functions, eager
and compiled. "Of a copy" is the speed in bytes that must move, over that of copying a tensor.""",
    "scaling": """## How cost grows""",
    "ledger": """## The ledger beside FullGrad
FullGrad is input gradients and bias gradients by plain autograd: a pass forward and one back. So it
is for the ledger, which also counts what is no layer's bias, and keeps no gradients; where a
network's calls are short, following them in Python counts.""",
    "svd": """## Singular values
The ten largest of F at a photo of a cat, in float32, see [svd.md](svd.md). "Samples" counts every
probe, "in sequence" batches one after another. "Differs by" is the largest relative difference to
scipy's svds in float64 on the same products.""",
}
