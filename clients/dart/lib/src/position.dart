import 'dart:convert';

/// A place in a stream: everything up to and including [offset] lies behind it.
typedef Position = ({String epoch, int offset});

/// Characters of a cursor. Source: docs/protocol.md, Cursor.
const cursorLimit = 4096;

/// Characters of a request's target. Edges let request lines of 8 KiB through.
const targetLimit = 6144;

/// The group's name in a stream; null for the others.
String? groupOf(String stream) => stream.startsWith('group:') ? stream.substring('group:'.length) : null;

/// `{stream: [epoch, offset]}`, as cursors and storages have it.
Map<String, Object> positionsToJson(Map<String, Position> positions) => {
      for (final MapEntry(:key, :value) in positions.entries) key: [value.epoch, value.offset],
    };

/// The other way round. What is no position is left out.
Map<String, Position> positionsFromJson(Object? json) => {
      if (json is Map<String, Object?>)
        for (final MapEntry(:key, :value) in json.entries)
          if (value case [final String epoch, final int offset]) key: (epoch: epoch, offset: offset),
    };

String encodeCursor(Map<String, Position> positions) =>
    base64Url.encode(utf8.encode(jsonEncode(positionsToJson(positions)))).replaceAll('=', '');

/// What a handshake names, and what is left to be joined after `welcome`.
class Plan {
  /// [own] always finds room. A group with a position goes into the cursor, one without into `groups`, as long as
  /// there is [room] in the target and the connection may have so many ([most]).
  factory Plan({
    required Map<String, Position> own,
    required Map<String, Position?> groups,
    required int room,
    required int most,
  }) {
    final cursor = {...own};
    final names = <String>[];
    final later = <String>{};
    var json = own.entries.fold(2, (sum, entry) => sum + _length(entry.key, entry.value));
    var query = 0;
    var count = 0;
    for (final MapEntry(key: stream, value: position) in groups.entries) {
      final name = groupOf(stream)!;
      final longer = position == null ? json : json + _length(stream, position);
      final wider = position == null ? query + Uri.encodeQueryComponent(name).length + '%2C'.length : query;
      final fits = _encoded(longer) <= cursorLimit && _encoded(longer) + wider <= room;
      if (count >= most || !fits) {
        later.add(stream);
        continue;
      }
      count += 1;
      json = longer;
      query = wider;
      if (position == null) {
        names.add(name);
      } else {
        cursor[stream] = position;
      }
    }
    return Plan._(cursor, names, later);
  }

  const Plan._(this.cursor, this.groups, this.later);

  final Map<String, Position> cursor;

  /// Names for `groups=`.
  final List<String> groups;

  /// Streams to be joined after `welcome`.
  final Set<String> later;

  /// Of `"stream":["epoch",offset],` in JSON. Ids and epochs have nothing that JSON would escape.
  static int _length(String stream, Position position) =>
      '"$stream":["${position.epoch}",${position.offset}],'.length;

  /// Of so many bytes in base64 without padding.
  static int _encoded(int bytes) => (bytes * 4 + 2) ~/ 3;
}
