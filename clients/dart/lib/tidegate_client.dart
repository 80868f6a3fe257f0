// A client for the Tidegate push gateway: each message once and in order, or a gap that says what is missing.

export 'src/command.dart' show CommandError;
export 'src/event.dart' show Event, Gap, Joined, Left, Message;
export 'src/events.dart' show GroupEvents;
export 'src/options.dart' show NotAllowed, Options, Storage, Token;
export 'src/position.dart' show Position;
export 'src/subscription.dart' show Handlers, Subscription;
export 'src/tidegate.dart' show ClientState, Tidegate;
export 'src/verdict.dart' show Reason;
