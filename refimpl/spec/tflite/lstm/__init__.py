"""LSTM and UNIDIRECTIONAL_SEQUENCE_LSTM of int8 with an int16 cell state."""
