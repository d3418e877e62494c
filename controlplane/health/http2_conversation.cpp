// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/http2_conversation.hpp"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

namespace sluice::health {
namespace {

constexpr std::size_t most_bytes_of_http2 = 256 * 1024;
constexpr std::size_t most_of_message = 1024;
constexpr std::size_t grpc_prefix = 5;  // a flag and the length
constexpr std::uint64_t grpc_serving_code = 1;

// read_varint() takes a number off the front (protobuf, at most ten bytes).
std::optional<std::uint64_t> read_varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 70 && !in.empty(); shift += 7) {
    const auto b = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    if (shift < 64) value |= std::uint64_t{b & 0x7fu} << shift;
    if ((b & 0x80) == 0) return value;
  }
  return std::nullopt;
}

std::string_view grpc_code_name(std::string_view code) {
  // https://grpc.io/docs/guides/status-codes/
  static constexpr std::array<std::string_view, 17> names{"OK",
                                                          "CANCELLED",
                                                          "UNKNOWN",
                                                          "INVALID_ARGUMENT",
                                                          "DEADLINE_EXCEEDED",
                                                          "NOT_FOUND",
                                                          "ALREADY_EXISTS",
                                                          "PERMISSION_DENIED",
                                                          "RESOURCE_EXHAUSTED",
                                                          "FAILED_PRECONDITION",
                                                          "ABORTED",
                                                          "OUT_OF_RANGE",
                                                          "UNIMPLEMENTED",
                                                          "INTERNAL",
                                                          "UNAVAILABLE",
                                                          "DATA_LOSS",
                                                          "UNAUTHENTICATED"};
  std::size_t number = 0;
  for (const char c : code) number = number * 10 + static_cast<std::size_t>(c - '0');
  return number < names.size() ? names[number] : std::string_view{"?"};
}

nghttp2_nv header(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view s) {
    return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(s.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

std::string grpc_request(std::string_view service) {
  std::string message;
  if (!service.empty()) {
    message += '\x0a';  // field 1, bytes
    for (std::size_t n = service.size();; n >>= 7) {
      message += static_cast<char>(n >= 0x80 ? (n & 0x7f) | 0x80 : n);
      if (n < 0x80) break;
    }
    message += service;
  }
  std::string out(grpc_prefix, '\0');
  out[3] = static_cast<char>(message.size() >> 8);
  out[4] = static_cast<char>(message.size() & 0xff);
  return out + message;
}

std::optional<std::uint64_t> grpc_serving(std::string_view body) {
  if (body.size() < grpc_prefix || body[0] != '\0') return std::nullopt;  // 1: compressed
  std::uint64_t length = 0;
  for (std::size_t i = 1; i < grpc_prefix; ++i)
    length = length << 8 | static_cast<unsigned char>(body[i]);
  body.remove_prefix(grpc_prefix);
  if (body.size() != length) return std::nullopt;
  std::uint64_t serving = 0;
  while (!body.empty()) {
    const auto key = read_varint(body);
    if (!key) return std::nullopt;
    std::optional<std::uint64_t> skip;
    switch (*key & 7) {
      case 0: {
        const auto value = read_varint(body);
        if (!value) return std::nullopt;
        if (*key >> 3 == 1) serving = *value;
        skip = 0;
        break;
      }
      case 1:
        skip = 8;
        break;
      case 2:
        skip = read_varint(body);
        break;
      case 5:
        skip = 4;
        break;
      default:
        break;
    }
    if (!skip || *skip > body.size()) return std::nullopt;
    body.remove_prefix(static_cast<std::size_t>(*skip));
  }
  return serving;
}

struct http2_conversation::callbacks {
  static http2_conversation& self(void* user) { return *static_cast<http2_conversation*>(user); }

  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                       std::size_t name_length, const std::uint8_t* value, std::size_t value_length,
                       std::uint8_t, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS) return 0;
    const std::string_view key{reinterpret_cast<const char*>(name), name_length};
    const std::string_view text{reinterpret_cast<const char*>(value), value_length};
    http2_conversation& c = self(user);
    // nghttp2 has seen to it that a status is three digits.
    if (key == ":status") {
      c.status_ = 0;
      for (const char digit : text) c.status_ = c.status_ * 10 + static_cast<unsigned>(digit - '0');
    } else if (key == "grpc-status" && text.size() <= 3 && !text.empty() &&
               std::all_of(text.begin(), text.end(), [](char d) { return d >= '0' && d <= '9'; })) {
      c.grpc_status_ = text;
    }
    return 0;
  }

  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    http2_conversation& c = self(user);
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
      c.conclude(failed(std::string{"HTTP/2: the server ends the connection: "} +
                        ::nghttp2_http2_strerror(frame->goaway.error_code)));
    // Interim responses (1xx) are passed over.
    if (frame->hd.type != NGHTTP2_HEADERS || c.grpc_ || c.status_ < 200) return 0;
    const bool ok =
        c.status_ >= c.target_.check.expect_first && c.status_ <= c.target_.check.expect_last;
    c.conclude(
        {ok ? probe_outcome::ok : probe_outcome::failed, "HTTP/2 " + std::to_string(c.status_)});
    return 0;
  }

  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t, const std::uint8_t* data,
                     std::size_t length, void* user) {
    http2_conversation& c = self(user);
    const std::size_t room = most_of_message - c.message_.size();
    c.message_too_long_ = c.message_too_long_ || length > room;
    c.message_.append(reinterpret_cast<const char*>(data), std::min(length, room));
    return 0;
  }

  static int on_close(nghttp2_session*, std::int32_t, std::uint32_t error, void* user) {
    http2_conversation& c = self(user);
    // A server may answer, and then reset what it does not want to read.
    if (error != NGHTTP2_NO_ERROR && c.grpc_status_.empty())
      c.conclude(failed(std::string{"HTTP/2: the server resets the stream: "} +
                        ::nghttp2_http2_strerror(error)));
    else
      c.conclude(c.grpc_ ? c.judge_grpc() : failed("HTTP/2: no status"));
    return 0;
  }

  static ssize_t read_body(nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t room,
                           std::uint32_t* flags, nghttp2_data_source* source, void*) {
    auto& c = *static_cast<http2_conversation*>(source->ptr);
    const std::size_t n = std::min(room, c.body_.size() - c.body_sent_);
    std::memcpy(to, c.body_.data() + c.body_sent_, n);
    c.body_sent_ += n;
    if (c.body_sent_ == c.body_.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
};

http2_conversation::http2_conversation(const target& t)
    : target_{t}, grpc_{t.check.kind == model::health_kind::grpc} {}

http2_conversation::~http2_conversation() {
  ::nghttp2_session_del(session_);
}

void http2_conversation::conclude(probe_result result) {
  if (!result_) result_ = std::move(result);
}

std::optional<probe_result> http2_conversation::begin() {
  nghttp2_session_callbacks* made = nullptr;
  nghttp2_option* option = nullptr;
  if (::nghttp2_session_callbacks_new(&made) != 0 || ::nghttp2_option_new(&option) != 0) {
    ::nghttp2_session_callbacks_del(made);
    return probe_result{probe_outcome::shortage, "no memory"};
  }
  ::nghttp2_session_callbacks_set_on_header_callback(made, callbacks::on_header);
  ::nghttp2_session_callbacks_set_on_frame_recv_callback(made, callbacks::on_frame);
  ::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, callbacks::on_data);
  ::nghttp2_session_callbacks_set_on_stream_close_callback(made, callbacks::on_close);
  // The window stays as it is: no more of a body than that is wanted.
  ::nghttp2_option_set_no_auto_window_update(option, 1);
  ::nghttp2_option_set_max_settings(option, 32);
  const int bad = ::nghttp2_session_client_new2(&session_, made, this, option);
  ::nghttp2_option_del(option);
  ::nghttp2_session_callbacks_del(made);
  if (bad != 0) return probe_result{probe_outcome::shortage, ::nghttp2_strerror(bad)};

  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384}};
  ::nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  const std::string host = host_of(target_, target_.check.tls ? 443 : 80);
  std::vector<nghttp2_nv> headers{
      header(":method", grpc_ ? "POST" : "GET"),
      header(":scheme", target_.check.tls ? "https" : "http"),
      header(":path", grpc_ ? std::string_view{"/grpc.health.v1.Health/Check"}
                            : std::string_view{target_.check.path}),
      header(":authority", host), header("user-agent", "sluice-health")};
  nghttp2_data_provider provider{};
  if (grpc_) {
    headers.push_back(header("content-type", "application/grpc"));
    headers.push_back(header("te", "trailers"));
    body_ = grpc_request(target_.check.grpc_service);
    provider.source.ptr = this;
    provider.read_callback = callbacks::read_body;
  }
  const std::int32_t stream = ::nghttp2_submit_request(
      session_, nullptr, headers.data(), headers.size(), grpc_ ? &provider : nullptr, nullptr);
  if (stream < 0) return failed(std::string{"HTTP/2: "} + ::nghttp2_strerror(stream));
  return std::nullopt;
}

std::string http2_conversation::take_output() {
  std::string out;
  if (session_ == nullptr) return out;
  const std::uint8_t* data = nullptr;
  for (ssize_t n; (n = ::nghttp2_session_mem_send(session_, &data)) > 0;)
    out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(n));
  return out;
}

std::optional<probe_result> http2_conversation::feed(std::string_view bytes) {
  // A server begins with its settings (RFC 9113 section 3.4). nghttp2 would wait for as much as
  // the first bytes of another protocol say, read as a length.
  if (total_ == 0 && bytes.size() > 3 && bytes[3] != char{NGHTTP2_SETTINGS})
    return failed(bytes.starts_with("HTTP/1") ? "not HTTP/2: the server answers by HTTP/1"
                                              : "not HTTP/2");
  total_ += bytes.size();
  const ssize_t taken = ::nghttp2_session_mem_recv(
      session_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (result_) return std::exchange(result_, std::nullopt);
  if (taken < 0)
    return failed(std::string{"not HTTP/2: "} + ::nghttp2_strerror(static_cast<int>(taken)));
  if (total_ > most_bytes_of_http2) return failed("bad response: too many bytes");
  // What nghttp2 found wrong it tells the server; then nothing more will come.
  if (::nghttp2_session_want_read(session_) == 0)
    return failed("HTTP/2: the connection ended without a response");
  return std::nullopt;
}

probe_result http2_conversation::closed() {
  return failed(total_ == 0 ? "connection closed without a response"
                            : "connection closed within the response");
}

std::string http2_conversation::waiting() const {
  return status_ != 0 ? " within the response" : " waiting for a response";
}

probe_result http2_conversation::judge_grpc() const {
  if (status_ != 200) return failed("gRPC: HTTP/2 " + std::to_string(status_));
  if (grpc_status_.empty()) return failed("gRPC: no status");
  if (grpc_status_ != "0")
    return failed("gRPC status " + grpc_status_ + " (" + std::string{grpc_code_name(grpc_status_)} +
                  ")");
  const auto serving = message_too_long_ ? std::nullopt : grpc_serving(message_);
  if (!serving) return failed("gRPC: a bad response");
  if (*serving == grpc_serving_code) return succeeded("gRPC SERVING");
  // grpc.health.v1.HealthCheckResponse.ServingStatus
  return failed(*serving == 0   ? "gRPC UNKNOWN"
                : *serving == 2 ? "gRPC NOT_SERVING"
                : *serving == 3 ? "gRPC SERVICE_UNKNOWN"
                                : "gRPC state " + std::to_string(*serving));
}

}  // namespace sluice::health
