using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Text;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Apim
{
    /// Evaluates expressions for a caller that speaks JSON lines over stdin and stdout: each request has an "id" and
    /// an "op", each answer the same "id" and either "result" or "error". While an expression reads a body whose bytes
    /// are not here yet, the host writes {"need": body id} and reads on until the bytes come.
    internal sealed class Host : IBodySource
    {
        private readonly TextReader input;
        private readonly TextWriter output;
        private readonly Queue<JObject> waiting = new Queue<JObject>();
        private readonly Dictionary<string, CallContext> contexts = new Dictionary<string, CallContext>();
        private readonly List<Func<IProxyRequestContext, object>> expressions =
            new List<Func<IProxyRequestContext, object>>();

        private readonly List<string> consumed = new List<string>();
        private bool wasStreamRead;

        private Host(TextReader input, TextWriter output)
        {
            this.input = input;
            this.output = output;
        }

        public static int Main(string[] arguments)
        {
            var utf8 = new UTF8Encoding(false);
            var output = new StreamWriter(Console.OpenStandardOutput(), utf8) { NewLine = "\n" };
            if (arguments.Length > 0)
            {
                output.WriteLine(Report(arguments).ToString(Formatting.None));
                output.Flush();
                return 0;
            }
            new Host(new StreamReader(Console.OpenStandardInput(), utf8), output).Run();
            return 0;
        }

        private static JToken Report(string[] arguments)
        {
            var list = Json.Parse(File.ReadAllText(arguments[1]));
            switch (arguments[0])
            {
                case "check":
                    return AllowList.Check(list, arguments[2]);
                case "constants":
                    return Constants.OfOtherTypes(list);
                default:
                    throw new ArgumentException($"Unknown command {arguments[0]}.");
            }
        }

        public byte[] Fetch(string bodyId)
        {
            Write(new JObject { ["need"] = bodyId });
            for (;;)
            {
                var message = Read() ?? throw new EndOfStreamException("The caller is gone.");
                // A request of another call may come first, and "body" in it is an object: as a string it would throw
                // here, and the request would never be answered.
                if (message["op"] == null && (string)message["body"] == bodyId)
                {
                    if (message["error"] != null)
                    {
                        throw new IOException($"The message body could not be read: {message["error"]}.");
                    }
                    return Convert.FromBase64String((string)message["content"]);
                }
                waiting.Enqueue(message);
            }
        }

        public void ReportConsumed(string bodyId) => consumed.Add(bodyId);

        public void ReportStreamedRead() => wasStreamRead = true;

        private void Run()
        {
            for (;;)
            {
                var request = waiting.Count > 0 ? waiting.Dequeue() : Read();
                if (request == null)
                {
                    return;
                }
                Write(Answer(request));
            }
        }

        private JObject Read()
        {
            var line = input.ReadLine();
            return line == null ? null : Json.Parse(line);
        }

        private void Write(JObject message)
        {
            output.WriteLine(message.ToString(Formatting.None));
            output.Flush();
        }

        private JObject Answer(JObject request)
        {
            var answer = new JObject { ["id"] = request["id"] };
            consumed.Clear();
            wasStreamRead = false;
            try
            {
                answer["result"] = Do(request, answer);
            }
            catch (Exception error)
            {
                // Whatever an expression throws is the answer to that evaluation, and no reason to end the host.
                answer["error"] = new JObject { ["type"] = error.GetType().FullName, ["message"] = error.Message };
            }
            if (consumed.Count > 0)
            {
                answer["consumed"] = new JArray(consumed);
            }
            if (wasStreamRead)
            {
                answer["streamed_read"] = true;
            }
            return answer;
        }

        private JToken Do(JObject request, JObject answer)
        {
            var operation = (string)request["op"];
            if (operation == "load")
            {
                return Load((string)request["path"], (string)request["class"], (int)request["count"]);
            }
            var id = (string)request["context"];
            if (operation == "open")
            {
                contexts[id] = new CallContext((JObject)request["parts"]);
                return null;
            }
            var context = contexts[id];
            var name = (string)request["name"];
            switch (operation)
            {
                case "close":
                    contexts.Remove(id);
                    return null;
                case "evaluate":
                    return Evaluate(context, request, answer);
                case "request":
                    context.Request = new Request((JObject)request["message"], Body(context, request));
                    return null;
                case "response":
                    context.Response = Response(context, request);
                    return null;
                case "part":
                    context.SetPart(name, request["part"]);
                    return null;
                case "variable":
                    context.Values[name] = Values.Decode(request["value"]);
                    return null;
                case "message_variable":
                    context.Values[name] = Response(context, request);
                    return null;
                case "remove_variable":
                    context.Values.Remove(name);
                    return null;
                case "get_variable":
                    return context.Values.TryGetValue(name, out var value) ? Values.Encode(value) : null;
                default:
                    throw new ArgumentException($"Unknown operation {operation}.");
            }
        }

        private JToken Load(string path, string className, int count)
        {
            var type = Assembly.Load(File.ReadAllBytes(path)).GetType(className, throwOnError: true);
            expressions.Clear();
            for (var index = 0; index < count; index++)
            {
                expressions.Add((Func<IProxyRequestContext, object>)Delegate.CreateDelegate(
                    typeof(Func<IProxyRequestContext, object>), type.GetMethod("E" + index)));
            }
            return expressions.Count;
        }

        private JToken Evaluate(CallContext context, JObject request, JObject answer)
        {
            try
            {
                var value = expressions[(int)request["expression"]](context);
                if (request["store"] != null)
                {
                    Store(context, (string)request["store"], value);
                }
                return Values.Encode(value);
            }
            finally
            {
                if (context.Traces.Count > 0)
                {
                    answer["traces"] = new JArray(context.Traces);
                    context.Traces.Clear();
                }
            }
        }

        private static void Store(CallContext context, string name, object value)
        {
            if (!Values.CanBeVariable(value))
            {
                throw new VariableTypeException(name, value.GetType());
            }
            context.Values[name] = value;
        }

        private Response Response(CallContext context, JObject request)
        {
            return request["message"] is JObject message ? new Response(message, Body(context, request)) : null;
        }

        private MessageBody Body(CallContext context, JObject request)
        {
            if (!(request["body"] is JObject json))
            {
                return null;
            }
            var id = (string)json["id"];
            if (!context.Bodies.TryGetValue(id, out var body))
            {
                body = new MessageBody(id, (long)json["size"], (bool)json["streamed"], this);
                context.Bodies[id] = body;
            }
            return body;
        }
    }
}
