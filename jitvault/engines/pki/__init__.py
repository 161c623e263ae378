from jitvault.engines.pki.engine import PkiEngine as PkiEngine
