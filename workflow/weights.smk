# Weights of a corpus that is too large for one machine: divided once, its shards in parallel, then one table.
#
#     snakemake --snakefile workflow/weights.smk --cores 8 --config source=stories.parquet out=weights.parquet shards=64
#
# On a cluster, add an executor, such as `--executor slurm --jobs 64`. `options` is passed to `ddpo weights`. Snakemake
# reads the values of --config as YAML. If a path contains `#` or `: `, write these settings to a file, quote the path
# there, and give the file with `--configfile FILE`.

import shlex
import sys
from pathlib import Path

source, out, shards = config["source"], config["out"], int(config["shards"])
options = shlex.split(config.get("options") or "")
for name in ("source", "out"):
    if not isinstance(config[name], str):
        raise ValueError(f"{name}: YAML reads it as {config[name]!r}; give it in a file, quoted, with --configfile FILE")


rule whole:
    input:
        [f"{out}.shards/{k}-of-{shards}.parquet" for k in range(1, shards + 1)],
    output:
        out,
    shell:
        "{sys.executable:q} -m ddpo_lib.cli merge {output:q} {input:q}"


rule divide:
    input:
        [source] if Path(source).exists() else [], # a data set of the hub is not a file
    output:
        temp(directory(f"{out}.parts")),
    params:
        reddit=["--reddit"] if "--reddit" in options else [],
    shell:
        "{sys.executable:q} -m ddpo_lib.cli divide {source:q} {output:q} --parts {shards} {params.reddit:q}"


rule shard:
    input:
        f"{out}.parts",
    output:
        temp(f"{out}.shards/{{k}}-of-{shards}.parquet"),
    params:
        options=lambda wildcards: options,
    shell:
        "{sys.executable:q} -m ddpo_lib.cli weights {input:q} {output:q} --shard {wildcards.k}/{shards} {params.options:q}"
