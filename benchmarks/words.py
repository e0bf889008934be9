"""What docs/benchmarks.md says of each benchmark, in the order of the page."""

WORDS = {
    "page": """# Benchmarks
Measured by the commands below; the page itself is made by `python -m benchmarks.page` from
benchmarks/results, which also have the spreads. All ways of a table ran interleaved in one process,
after a run that is not counted, and their results were compared first; medians are shown. Memory
that is freed stays with the process, for every candidate alike: with the C library's defaults each
tensor above 32 MB is fetched from the system anew, which takes several times the work in it.

All of it took 70 minutes, with an empty cache of compiled code. The machine is a virtual one, whose
speed changes by a tenth and more from hour to hour: compare within a table.""",
    "storage": """## What is kept for one image
Counted on meta tensors. "ReLU activations" is DFV's record in float32, and the second column the
paper's Table 1, which prints them as values x 4 bytes x 1000 images / 10^6 / 1024. Autograd is what
a graph of the plain network keeps with frozen weights, "doubled batch" the same of the paper's
doubled batch in torch functions.""",
    "peers": """## Beside torch's own products
Time with one probe, each over that of what torch does instead: a forward pass and the function of
torch.func.linearize for F v; a forward and a backward pass with frozen weights and the kept graph
of torch.func.vjp for Fᵀ u; a forward pass for `LinearInterpreter(model, x0)`, its check included.
Below 1 is faster. All of a column ran interleaved in one process.

The weights are random, with batch norms settled on random inputs. "Differs by" is the largest
relative difference of both products to torch's, before they are timed. Where a network is not
piecewise linear, torch's are those of "tape of Taylor"; the tape freezes as the paper does, and is
compared with the doubled batch.

F v takes less than a pass where batch norms are folded, and in this run a few percent more on EDSR
and PixelShuffle-4, which have none. Making an interpreter takes 7 to 9 passes where convolutions
are large, and 11 to 18 where calls are short and many, as in DenseNet: the check alone runs the
network six times, and what is recorded once goes through Python. By Taylor it takes up to 27.""",
    "ways": """## F v and Fᵀ u by every way
Time over that of a plain pass (forward for F v, forward and backward with frozen weights for Fᵀ u);
below 1 is faster than torch itself. Gradients and "tape of Taylor" give the Jacobian, which is F
where the network is piecewise linear; on CycleGAN the other ways freeze as the paper does. More
probes are left out where a product would take long. DFV has a table of its own, below.

The tape takes 0.6 to 1 pass for F v and 0.4 to 0.5 of a forward and backward pass for Fᵀ u. In this
run torch.func.linearize is a fifth faster for F v on EDSR, and the kept graph of torch.func.vjp for
Fᵀ u on CycleGAN; in the table above, from the same hour, it is the other way round. Both give the
Jacobian alone, and keep many times the memory (see below). All else is slower.""",
    "dfv": """## Against Deep Filter Visualization
Table 2 of the paper: DFV records every activation, in memory or in files that the page cache does
not hold. The paper infers from the speed of media that its doubled batch is 2 to 10,000 times
faster. A DFV that records once and replays from memory, which has room for these records, is as
fast as a plain pass, and with one probe the doubled batch, which runs x0 along, takes twice that;
more probes share x0. From files DFV takes up to 1.5 times as long with one probe. What the tape
gains is half of the time for Fᵀ u, for which DFV's replay runs forward anew, and the memory.""",
    "memory": """## Memory
A fresh process for each: MB kept by the way, and at the peak of one product, over what the process
held with the network loaded. For Fᵀ u the tape's peak is the smallest everywhere. For F v it is the
smallest, or within a sixth of DFV on disk, which maps one layer's record at a time: the system sees
what the C library keeps of freed memory, too, which differs from way to way and from run to run by
some tensors. (With MALLOC_MMAP_THRESHOLD_=1000000 the tape's F v on VGG-19 peaks at 37 MB.)

By Taylor the tape of a network with norms keeps x0 at each norm and what its derivative needs of
that, which is computed once: about three activations for each. F v peaks below autograd there, and
Fᵀ u above it.""",
    "fits": """## How large an input fits
Fᵀ u of the paper's large EDSR (32 blocks of 256 features, x4): pixels of the input for which the
peak of the whole process stays within 4, 8 and 16 GB, on the line through two measured sizes; a
third confirms it to 10 %. What limits the tape are the activations of the x4 tail as they pass, 256
channels at four times the width and height, of which two or three are there at once; autograd keeps
those of every layer.

All with MALLOC_MMAP_THRESHOLD_=1000000 in the environment, since glibc's heap, where tensors below
32 MB may lie, keeps the holes that freed activations leave between the decisions. At the sizes that
fit, activations are larger than that and the variable changes nothing: without it, the tape's peak
was 2.26 GB at 192x192 and 3.41 GB at 256x256, autograd's 5.27 GB at 192x192, all within 2 % of the
lines.""",
    "kernels": """## Operators
A doubled batch of 64 channels of height x 512 pixels, against the same in torch functions, eager
and compiled. "Of a copy" is the speed in bytes that must move, over that of copying a tensor.
Rounds count once one has fetched no memory from the system, or after eight.

In cache max_pool2d_frozen is level with torch's gather: both look up a place for each output. With
large tensors, where a decision of one byte instead of an index of eight counts, it is 1.7 times as
fast; 1.7 to 2.8 times over many runs, as memory happened to lie. Compiled, the scopes of relu and
clamp take down to three quarters of the operators' time: they pack no decision.""",
    "calls": """## Every scope call of six networks on a GPU
SqueezeNet, VGG-19, ResNet-50, EDSR, CycleGAN and a style network make these calls, each with a
batch of 1, 2, 9 and 65 samples. The time of a copy that reads and writes as many bytes, over a
call's own: the median over all calls that move more than 8 MB, and in brackets how many of them
reach 0.9. Bytes are those that must move: every input read once, every result written once. All
calls of a shape are in one CUDA graph, so that what fits the cache of 50 MB is found there, by the
copy too.

What treats elements alone takes the time of a copy, or less: a copy writes what has not been read
before. A scope of instance norm runs three kernels, of which the first two wait for memory's
latency more than for memory: one sample alone takes two to five times a copy's time. Its backward
reads the gradient twice, before and after it is summed. Pools of contiguous images go one output at
a time. The transposed pool was written anew after this run, and is left out.""",
    "scaling": """## How cost grows""",
    "ledger": """## The ledger beside FullGrad
FullGrad is input gradients and bias gradients by plain autograd: a pass forward and one back. So it
is for the ledger, which also counts what is no layer's bias, and keeps no gradients; where a
network's calls are short, what both do for each of them counts.""",
    "svd": """## Singular values
The ten largest of F at a photo of a cat, in float32, see [svd.md](svd.md). "Samples" counts every
probe, "in sequence" batches one after another. "Differs by" is the largest relative difference to
scipy's svds in float64 on the same products.""",
    "fields": """## Rows, columns, all of F
One row or column at the pixel in the middle: where it may be other than zero (`op.boxes`), with the
zeros around it (`op.rows`, `op.columns`), by a full product of a unit probe, and by torch's own
derivative of the model. "MB at the peak" is of one more such product in a fresh process, over what
the network and its interpreter hold. A thousandth of a pass is timed by itself, as often as it is
used so: next to full passes the caches are theirs.

All of F is coloured: 363 passes whatever the size. Column by column, and jacrev in chunks, are told
by four columns or rows.

The last rows make products of 32 x 256 EDSR for a 1920x1080 picture, in tiles as `max_bytes`
demands, and as a whole; each in a process of its own.""",
    "explore": """## The explorer, from pointer to picture
Milliseconds from a real mouse event in headless Chromium until the field, or the row of the score
under the pointer, is drawn and the frame is out; server and browser share the machine's two cores.
"wanted" is what it was built for: median / 95th percentile.""",
}
