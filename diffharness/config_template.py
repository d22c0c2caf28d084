"""The commented YAML file of a run that `diffharness init` writes."""

from diffharness import defaults

TEMPLATE = f"""\
# A run of diffharness. `diffharness run --config THIS_FILE`; options on the command line win.

# The two models: a folder, a Hub id, or lm-eval model_args (pretrained=...,dtype=...).
baseline: path/or/hub-id-of-the-baseline
candidate: path/or/hub-id-of-the-candidate
# ancestor: path/or/hub-id   # a model that both descend from; adds the category shift

# What they are compared on: lm-eval task, group and pattern names.
tasks: [hellaswag, arc_easy]
# include_path: [my/tasks]   # folders of further task YAML files
# metric: acc_norm           # what the account is of, where a task has it; by default a task's first metric
# cluster: passage           # field of the documents that says which belong together; drawn whole in intervals
# limit: 200                 # documents a task
batch_size: {defaults.BATCH_SIZE}
# num_fewshot: 5
# apply_chat_template: true  # the baseline's, for both models alike
# own_templates: true        # score the candidate in its own; what that makes of a gap is a part of it, `prompt`
# system_instruction: You are a helpful assistant.
# gen_kwargs: temperature=0,max_gen_toks=64

# Where the models are compared: a decoder block's index, a fraction of depth, or `auto`: the first layer that carries
# half of the tasks' real gaps (`diffharness layers` shows them).
# layer: {defaults.LAYER}
# depth_documents: {defaults.DEPTH_DOCUMENTS}        # a task, that every layer is looked at with

# What the crosscoder learns from: JSONL (a `text` in every line), .txt or Parquet files, hf:DATASET, or `tasks` (the
# tasks' own training splits), with weights if wanted; by default what the tasks made the models read.
# corpus: [texts.jsonl@0.7, hf:org/dataset@0.3]
# latents: 4096             # size of the crosscoder; by default {defaults.EXPANSION} times the hidden size
# k: 32                     # mean number of active latents a token; by default the hidden size over 32, 8 to 100
# sparsity: {defaults.SPARSITY}      # or topk, l1, jumprelu
# shared_latents: 64        # latents whose decoders are the same in all models
# dedicated: 32             # latents of the baseline alone, and as many of the candidate alone
# groups: [256, 1024]       # nested dictionaries (Matryoshka)
# seeds: 2                  # train so many, and say how many latents they share
# crosscoder: org/name      # load one instead: a folder, a file or a Hub id; then none of the six above
train_tokens: {defaults.TRAIN_TOKENS}
# activation_dtype: bfloat16 # what activations are stored in; by default what the models compute in
# stream: true              # keep activations off the disk: every pass reads the texts again
# skip_special: true        # leave the positions of special tokens out, as the first one always is

# What names the latents: texts tagged by category, a JSONL file or a folder of such; by default built-in English ones.
# probes: probes.jsonl
# taxonomy: categories.yaml  # the categories that there are
# annotator: local-chat-completions,model=NAME,base_url=URL   # or file,LABELS.csv; by default {defaults.ANNOTATOR}
# nu_reconstruction: {defaults.NU_RECONSTRUCTION}     # a latent is specific to a model below these two
# nu_error: {defaults.NU_ERROR}

# ablate: [safety, "multilingual,safety"]   # score the candidate without these categories, each a model of its own

smallest_effect: {defaults.SMALLEST_EFFECT}        # gaps below this are not called a change
seed: {defaults.SEED}
attribution_documents: {defaults.ATTRIBUTION_DOCUMENTS}  # a task, drawn in strata by what became of their score
# random_sets: {defaults.RANDOM_SETS}           # that every claim is tried against; 0: nothing is worded as a cause
# shapley: {defaults.SHAPLEY}       # on the real metric: log-likelihood tasks, or all, or none
# device: cuda
output: {defaults.OUTPUT}
"""
