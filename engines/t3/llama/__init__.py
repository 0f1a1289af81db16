"""T3 of standard and Multilingual: Llama with learned positions, a perceiver, and two lanes for guidance."""
