"""What a first quarter of an hour on a CUDA machine should prove and measure.

    python -m benchmarks.gpu [--data cifar] [--out FOLDER]        # 12 minutes, from the checkout
    python -m benchmarks.gpu --first, then --second               # in two halves, of 5 and of 7 minutes
    python -m benchmarks.gpu --only speed,kernels                 # some parts
    python -m benchmarks.gpu --dry                                # every part, tiny, on a CPU

What would break comes first, then what the toolkit promises, then speed. Each part is a process with a time limit of
its own, so that one that hangs or breaks the GPU's context costs a part and not the whole, and its rows are kept as
they come. All of it is one JSON file, with the machine and the versions.
"""
