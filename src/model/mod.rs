//! Nouns: values without IO, clock or framework.
