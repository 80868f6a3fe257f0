/// A WebSocket that is open.
abstract interface class Socket {
  /// Texts. Ends, without an error, when the connection has.
  Stream<Object?> get messages;

  /// What the peer closed with; null before the end, and after a cut.
  int? get closeCode;
  String? get closeReason;

  void send(String text);

  /// Returns at once: where the network is gone nobody answers a close frame.
  void close();
}

/// The gateway, or an edge, answered the handshake with an HTTP status.
class Refused implements Exception {
  const Refused(this.status);

  final int status;
}
