"""Which loss should you fine-tune with when a language model wrote most of your training data?"""

__version__ = "0.1.0"
