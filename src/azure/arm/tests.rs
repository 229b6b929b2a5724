//! What the client sends and how it reads what comes back, on loopback.
