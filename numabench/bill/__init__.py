"""The bill of a program: what it did that runtimes silently pay for, each count times this machine's own price. Pure: nothing here reads a machine."""
