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
    /// an "op", each answer the same "id" and either "result" or "error"; "close" has no "id" and gets no answer. While
    /// an expression reads a body whose bytes are not here yet, the host writes {"need": body id, "context": id} and
    /// reads on until the bytes come.
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
        private string current;

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
            Write(new JObject { ["need"] = bodyId, ["context"] = current });
            for (;;)
            {
                var message = Read() ?? throw new EndOfStreamException("The caller is gone.");
                // Requests of other calls may come first.
                if ((string)message["body"] == bodyId)
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
                if ((string)request["op"] == "close")
                {
                    contexts.Remove((string)request["context"]);
                    continue;
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
            switch (operation)
            {
                case "load":
                    return Load((string)request["path"], (string)request["class"], (int)request["count"]);
                case "evaluate":
                    current = (string)request["context"];
                    foreach (JObject change in (JArray)request["changes"])
                    {
                        Apply(change);
                    }
                    return Evaluate(contexts[current], request, answer);
                default:
                    throw new ArgumentException($"Unknown operation {operation}.");
            }
        }

        private void Apply(JObject change)
        {
            var operation = (string)change["op"];
            if (operation == "open")
            {
                contexts[current] = new CallContext((JObject)change["parts"]);
                return;
            }
            var context = contexts[current];
            var name = (string)change["name"];
            switch (operation)
            {
                case "request":
                    context.Request = new Request((JObject)change["message"], Body(context, change));
                    break;
                case "response":
                    context.Response = Response(context, change);
                    break;
                case "part":
                    context.SetPart(name, change["part"]);
                    break;
                case "variable":
                    context.Values[name] = Values.Decode(change["value"]);
                    break;
                case "message_variable":
                    context.Values[name] = Response(context, change);
                    break;
                case "remove_variable":
                    context.Values.Remove(name);
                    break;
                default:
                    throw new ArgumentException($"Unknown change {operation}.");
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
                if (request["store"] == null)
                {
                    return Values.Encode(value);
                }
                // Not sent as well: written with indents, a body that nests deep is longer than itself a thousand times.
                Store(context, (string)request["store"], value);
                return null;
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

        private Response Response(CallContext context, JObject change)
        {
            return change["message"] is JObject message ? new Response(message, Body(context, change)) : null;
        }

        private MessageBody Body(CallContext context, JObject change)
        {
            if (!(change["body"] is JObject json))
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
