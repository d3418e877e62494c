// SPDX-License-Identifier: Apache-2.0
// Checks by HTTP/2 and gRPC, in memory, with nghttp2 as the server. Real servers are in
// tests/end_to_end/health_kinds_test.py.
#include "controlplane/health/http2_conversation.hpp"

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <map>
#include <vector>

#include "tests/unit/health/one_check.hpp"

namespace sluice::health {
namespace {

using fields = std::vector<std::pair<std::string, std::string>>;

// answer: what the server says to the first request.
struct answer {
  fields headers{{":status", "200"}};
  std::string body{};
  fields trailers{};
  std::uint32_t reset{NGHTTP2_NO_ERROR};
  bool never{false};
};

class h2_server {
 public:
  explicit h2_server(answer a) : answer_{std::move(a)} {
    nghttp2_session_callbacks* callbacks = nullptr;
    ::nghttp2_session_callbacks_new(&callbacks);
    ::nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    ::nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    ::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    ::nghttp2_session_server_new(&session_, callbacks, this);
    ::nghttp2_session_callbacks_del(callbacks);
    ::nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~h2_server() { ::nghttp2_session_del(session_); }

  std::string exchange(const std::string& in) {
    ::nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(in.data()),
                               in.size());
    std::string out;
    const std::uint8_t* data = nullptr;
    for (ssize_t n; (n = ::nghttp2_session_mem_send(session_, &data)) > 0;)
      out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(n));
    return out;
  }

  std::map<std::string, std::string> request;
  std::string request_body;

 private:
  static std::vector<nghttp2_nv> pairs(const fields& from) {
    std::vector<nghttp2_nv> out;
    for (const auto& [name, value] : from)
      out.push_back({const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(name.data())),
                     const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(value.data())),
                     name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
    return out;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t* name,
                       std::size_t name_length, const std::uint8_t* value, std::size_t value_length,
                       std::uint8_t, void* user) {
    static_cast<h2_server*>(user)
        ->request[{reinterpret_cast<const char*>(name), name_length}]
        .assign(reinterpret_cast<const char*>(value), value_length);
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t, const std::uint8_t* data,
                     std::size_t length, void* user) {
    static_cast<h2_server*>(user)->request_body.append(reinterpret_cast<const char*>(data), length);
    return 0;
  }
  static int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    auto& s = *static_cast<h2_server*>(user);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0 || s.answer_.never) return 0;
    const std::int32_t id = frame->hd.stream_id;
    if (s.answer_.reset != NGHTTP2_NO_ERROR)
      return ::nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, s.answer_.reset);
    const auto headers = pairs(s.answer_.headers);
    if (s.answer_.body.empty() && s.answer_.trailers.empty())
      return ::nghttp2_submit_response(session, id, headers.data(), headers.size(), nullptr);
    nghttp2_data_provider provider{};
    provider.source.ptr = &s;
    provider.read_callback = read_body;
    return ::nghttp2_submit_response(session, id, headers.data(), headers.size(), &provider);
  }
  static ssize_t read_body(nghttp2_session* session, std::int32_t id, std::uint8_t* to,
                           std::size_t room, std::uint32_t* flags, nghttp2_data_source*,
                           void* user) {
    auto& s = *static_cast<h2_server*>(user);
    const std::size_t n = std::min(room, s.answer_.body.size() - s.sent_);
    s.answer_.body.copy(reinterpret_cast<char*>(to), n, s.sent_);
    s.sent_ += n;
    if (s.sent_ == s.answer_.body.size()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!s.answer_.trailers.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const auto trailers = pairs(s.answer_.trailers);
        ::nghttp2_submit_trailer(session, id, trailers.data(), trailers.size());
      }
    }
    return static_cast<ssize_t>(n);
  }

  answer answer_;
  std::size_t sent_{0};
  nghttp2_session* session_{nullptr};
};

std::optional<probe_result> ask(const target& t, h2_server& server, std::size_t piece = 100000) {
  http2_conversation talk{t};
  if (auto result = talk.begin()) return result;
  for (int round = 0; round < 20; ++round) {
    const std::string back = server.exchange(talk.take_output());
    for (std::size_t at = 0; at < back.size(); at += piece)
      if (auto result = talk.feed(std::string_view{back}.substr(at, piece))) return result;
  }
  return std::nullopt;
}

std::string text_of(const target& t, answer a, std::size_t piece = 100000) {
  h2_server server{std::move(a)};
  const auto result = ask(t, server, piece);
  return result ? (result->outcome == probe_outcome::ok ? "+" : "-") + result->text : "nothing";
}

std::string message(std::string_view protobuf) {
  std::string out(5, '\0');
  out[4] = static_cast<char>(protobuf.size());
  return out.append(protobuf);
}

TEST(health_http2, the_status_counts) {
  target t = test::target_of(model::health_kind::http2, 8080);
  t.check.path = "/healthz";
  h2_server server{{}};
  const auto result = ask(t, server);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->text, "HTTP/2 200");
  EXPECT_EQ(server.request[":method"], "GET");
  EXPECT_EQ(server.request[":path"], "/healthz");
  EXPECT_EQ(server.request[":scheme"], "http");
  EXPECT_EQ(server.request[":authority"], "127.0.0.1:8080");
  for (const std::size_t piece : {1u, 3u, 1000u}) {
    EXPECT_EQ(text_of(t, {.headers = {{":status", "503"}}}, piece), "-HTTP/2 503");
    EXPECT_EQ(text_of(t, {.body = std::string(50'000, 'x')}, piece), "+HTTP/2 200");
  }
  EXPECT_EQ(text_of(t, {.reset = NGHTTP2_REFUSED_STREAM}),
            "-HTTP/2: the server resets the stream: REFUSED_STREAM");
  EXPECT_EQ(text_of(t, {.never = true}), "nothing");
}

TEST(health_http2, what_is_not_http2_is_down) {
  const target t = test::target_of(model::health_kind::http2, 80);
  for (const auto& [text, reason] :
       {std::pair{"HTTP/1.1 400 Bad Request\r\n\r\n", "not HTTP/2: the server answers by HTTP/1"},
        std::pair{"SSH-2.0-OpenSSH_9.2p1\r\n", "not HTTP/2"}}) {
    http2_conversation talk{t};
    ASSERT_FALSE(talk.begin());
    (void)talk.take_output();
    const auto result = talk.feed(text);
    ASSERT_TRUE(result) << text;
    EXPECT_EQ(result->outcome, probe_outcome::failed);
    EXPECT_EQ(result->text, reason);
  }
}

TEST(health_grpc, serving_is_up) {
  target t = test::target_of(model::health_kind::grpc, 50051);
  t.check.grpc_service = "shop.v1.Cart";
  const fields ok{{"grpc-status", "0"}};
  h2_server server{{.body = message("\x08\x01"), .trailers = ok}};
  const auto result = ask(t, server);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->outcome, probe_outcome::ok);
  EXPECT_EQ(result->text, "gRPC SERVING");
  EXPECT_EQ(server.request[":method"], "POST");
  EXPECT_EQ(server.request[":path"], "/grpc.health.v1.Health/Check");
  EXPECT_EQ(server.request["content-type"], "application/grpc");
  EXPECT_EQ(server.request["te"], "trailers");
  EXPECT_EQ(server.request_body, std::string("\0\0\0\0\x0e\x0a\x0cshop.v1.Cart", 19));
  EXPECT_EQ(text_of(t, {.body = message("\x08\x01"), .trailers = ok}, 1), "+gRPC SERVING");
  EXPECT_EQ(text_of(t, {.body = message("\x08\x02"), .trailers = ok}), "-gRPC NOT_SERVING");
  EXPECT_EQ(text_of(t, {.body = message(""), .trailers = ok}), "-gRPC UNKNOWN");
  EXPECT_EQ(text_of(t, {.body = message("\x08"), .trailers = ok}), "-gRPC: a bad response");
  EXPECT_EQ(text_of(t, {.body = std::string(5000, 'x'), .trailers = ok}), "-gRPC: a bad response");
  EXPECT_EQ(text_of(t, {.headers = {{":status", "200"}, {"grpc-status", "12"}}}),
            "-gRPC status 12 (UNIMPLEMENTED)");
  EXPECT_EQ(text_of(t, {.trailers = {{"grpc-status", "5"}}}), "-gRPC status 5 (NOT_FOUND)");
  EXPECT_EQ(text_of(t, {.headers = {{":status", "404"}}}), "-gRPC: HTTP/2 404");
  EXPECT_EQ(text_of(t, {}), "-gRPC: no status");
}

TEST(health_grpc, messages_are_read_strictly) {
  EXPECT_EQ(grpc_request(""), std::string(5, '\0'));
  EXPECT_EQ(grpc_request(std::string(200, 'a')).substr(0, 8),
            std::string("\0\0\0\0\xcb\x0a\xc8\1", 8));
  EXPECT_EQ(grpc_serving(message("\x08\x01")), 1U);
  // Other fields are passed over; of one that comes twice the last counts.
  EXPECT_EQ(grpc_serving(message(std::string("\x12\x02hi\x19"
                                             "12345678\x25"
                                             "1234\x08\x02\x08\x01"))),
            1U);
  for (const std::string_view bad : {"\x08", "\x12\x05hi", "\x0b\x01",
                                     "\x19"
                                     "1234567",
                                     "\xff\xff\xff"})
    EXPECT_FALSE(grpc_serving(message(bad)));
  std::string compressed = message("\x08\x01");
  compressed[0] = 1;
  EXPECT_FALSE(grpc_serving(compressed));
  EXPECT_FALSE(grpc_serving(message("\x08\x01").substr(0, 6)));
  EXPECT_FALSE(grpc_serving(message("\x08\x01") + "x"));
}

}  // namespace
}  // namespace sluice::health
