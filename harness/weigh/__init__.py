"""From two files to a decision: are rows that a language model wrote worth training on beside a few human ones?"""
