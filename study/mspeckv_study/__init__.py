"""What runs, times, models and judges the engine, and looks into it; the engine imports none of it.

    experiments/    sweeps over settings, kept row by row, and their report
    profiling/      runs under PyTorch's profiler, and a machine's ceilings
    whatif/         times and bytes of settings that nobody ran, and a planner over them
    probes/         what a codec, a policy or a model does to attention and to the next token
    verification/   a judge of any engine: does its text have the model's distribution?
    documents       texts to run it over
    measured        what is kept of measurements, for people
    cli/            the command `mspeckv`, words around all of it

Its public names are taken from `mspeckv` itself, which loads them when they are asked for.
"""
