"""Admission, authentication, TLS, and the limits on connections and their input."""
