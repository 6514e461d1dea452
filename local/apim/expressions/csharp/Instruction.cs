using System;
using System.Collections.Generic;
using System.Reflection;
using System.Reflection.Emit;

namespace Apim
{
    /// One instruction of compiled code that refers to a type, a method or a field.
    internal sealed class Instruction
    {
        private static readonly Dictionary<int, OpCode> Codes = ReadCodes();

        private Instruction(MemberInfo operand, bool isLastArgumentGiven)
        {
            Operand = operand;
            IsLastArgumentGiven = isLastArgumentGiven;
        }

        public MemberInfo Operand { get; }

        /// False when the last argument is the number 0, as the compiler fills in for an optional enumeration.
        public bool IsLastArgumentGiven { get; }

        public static IEnumerable<Instruction> Read(MethodBase method, MethodBody body)
        {
            var code = body.GetILAsByteArray();
            var typeArguments = method.DeclaringType.IsGenericType ? method.DeclaringType.GetGenericArguments() : null;
            var methodArguments = method.IsGenericMethod ? method.GetGenericArguments() : null;
            var previous = OpCodes.Nop;
            for (var at = 0; at < code.Length;)
            {
                var value = (int)code[at++];
                if (value == 0xFE)
                {
                    value = 0xFE00 | code[at++];
                }
                var opCode = Codes[value];
                switch (opCode.OperandType)
                {
                    case OperandType.InlineMethod:
                    case OperandType.InlineField:
                    case OperandType.InlineType:
                    case OperandType.InlineTok:
                        var member = method.Module.ResolveMember(BitConverter.ToInt32(code, at), typeArguments, methodArguments);
                        yield return new Instruction(member, previous != OpCodes.Ldc_I4_0);
                        break;
                }
                at += OperandSize(opCode.OperandType, code, at);
                previous = opCode;
            }
        }

        private static int OperandSize(OperandType type, byte[] code, int at)
        {
            switch (type)
            {
                case OperandType.InlineNone:
                    return 0;
                case OperandType.ShortInlineBrTarget:
                case OperandType.ShortInlineI:
                case OperandType.ShortInlineVar:
                    return 1;
                case OperandType.InlineVar:
                    return 2;
                case OperandType.InlineI8:
                case OperandType.InlineR:
                    return 8;
                case OperandType.InlineSwitch:
                    return 4 + 4 * BitConverter.ToInt32(code, at);
                default:
                    return 4;
            }
        }

        private static Dictionary<int, OpCode> ReadCodes()
        {
            var codes = new Dictionary<int, OpCode>();
            foreach (var field in typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static))
            {
                var code = (OpCode)field.GetValue(null);
                codes[(ushort)code.Value] = code;
            }
            return codes;
        }
    }
}
