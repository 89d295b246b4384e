"""MC dropout: one stack of replicas against a loop over replicas.

python timings/mc_dropout_step.py [--device cuda] [--rounds 5] [--replicas 1,10,32] [--batch 16,64,200]
"""

from stack import compare

from gapbench.methods.mc_dropout import MCDropout

if __name__ == "__main__":
    compare(MCDropout(), __doc__)
