"""What `ptzmesh doctor` looks at: small functions, each of which gives one `Check` or several."""
