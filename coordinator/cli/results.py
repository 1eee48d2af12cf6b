"""`ptzmesh results`, `collect`, `verify`: read the stream, drain it, prove the file whole."""
