import 'dart:async';
import 'dart:convert';

import 'options.dart';
import 'position.dart';

/// Positions beyond this process. A storage that throws is done without; that is said once.
class Store {
  Store(this._storage, this._key, {required this.content, required this.onError});

  static const _readLimit = Duration(seconds: 2);
  static const _writeDelay = Duration(milliseconds: 250);

  final Storage? _storage;
  final String _key;

  /// Whose positions, and which, at the moment of a write.
  final (String?, Map<String, Position>) Function() content;
  final void Function(Object error) onError;
  Timer? _write;
  bool _isBroken = false;

  /// What was stored; null where there is nothing that can be read.
  Future<(String, Map<String, Position>)?> read() async {
    try {
      final text = await Future<String?>.value(_storage?.getItem(_key)).timeout(_readLimit);
      if (text == null) return null;
      if (jsonDecode(text) case {'v': 1, 'client': final String client, 'positions': final Object positions}) {
        return (client, positionsFromJson(positions));
      }
    } on Object catch (error) {
      _broken(error);
    }
    return null;
  }

  /// Positions have moved: they are written soon.
  void moved() {
    if (_storage == null || (_write?.isActive ?? false)) return;
    _write = Timer(_writeDelay, () => unawaited(_save()));
  }

  /// Writes at once what was to be written soon.
  void flush() {
    if (!(_write?.isActive ?? false)) return;
    _write?.cancel();
    unawaited(_save());
  }

  Future<void> _save() async {
    final (client, positions) = content();
    try {
      await _storage?.setItem(_key, jsonEncode({'v': 1, 'client': client, 'positions': positionsToJson(positions)}));
    } on Object catch (error) {
      _broken(error);
    }
  }

  void _broken(Object error) {
    if (!_isBroken) onError(error);
    _isBroken = true;
  }
}
