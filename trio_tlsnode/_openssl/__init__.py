"""The seam to OpenSSL: the only package that imports OpenSSL, cffi, or cryptography's bindings."""
