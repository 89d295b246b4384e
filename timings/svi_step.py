"""Mean-field SVI in Pyro: one program for the stack of replicas against a loop over replicas.

python timings/svi_step.py [--device cuda] [--rounds 5] [--replicas 1,10,32] [--batch 16,64,200]
"""

from stack import compare

from gapbench.methods.svi import SVI

if __name__ == "__main__":
    compare(SVI(), __doc__)
