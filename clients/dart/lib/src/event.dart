import 'position.dart';

/// What a subscription hears. [stream] is `group:<name>`, `client:<id>` or `all`.
sealed class Event {
  const Event(this.stream);

  final String stream;

  /// The group's name; null for the client's own stream and for `all`.
  String? get group => groupOf(stream);
}

final class Message extends Event {
  const Message(
    super.stream, {
    required this.epoch,
    required this.offset,
    required this.time,
    required this.data,
    required this.client,
    required this.missed,
  });

  final String epoch;
  final int offset;

  /// When it was journalled. Sort by [offset]: a clock may step back.
  final DateTime time;

  /// As `jsonDecode` gives it.
  final Object? data;

  /// Who published it; null where the application pushed it.
  final String? client;

  /// Whether it came from the journal, after an absence.
  final bool missed;
}

/// [from] to [to], both included, are missing and will not come. Null where nobody can tell.
final class Gap extends Event {
  const Gap(super.stream, {required this.epoch, required this.from, required this.to, required this.reason});

  final String epoch;
  final int? from;
  final int? to;

  /// `expired`, `reset`, `skipped`, or `hole` where the gateway left one without a word. There may be others some day.
  final String reason;
}

final class Joined extends Event {
  const Joined(super.stream, {required this.offset, required this.top, required this.recovered, required this.missed});

  final int offset;
  final int top;

  /// Null where the stream began without a position.
  final bool? recovered;
  final int missed;
}

final class Left extends Event {
  const Left(super.stream, this.reason);

  /// `removed`, `not_allowed`, or an error's code.
  final String reason;
}
