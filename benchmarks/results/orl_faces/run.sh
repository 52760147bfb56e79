#!/usr/bin/env bash
# How records/ and plans/ were made: two stages at a time on two cores. Needs the photographs (AT&T Laboratories Cambridge
# 1994) as a folder orl_faces with folders s1 to s40 in the root of the checkout, and the versions that the records name.
set -euo pipefail
git checkout ac1dcd5f4ec423c19a799b818d6b0b4f8fe76bb1
supreme run benchmarks/plans/orl_faces.yaml --workers 2
# The records got the hash of their plan later, by 'supreme run' over the finished output folder: with the methods, metrics
# and datasets of this commit, so that nothing was computed again, and the records of a later one.
